"""Linked views: clicks, choices and keys write the URL, the URL restores everything, and harmful text waits until it is asked for."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pandas as pd
from thoughtlens.viz.app.runs import Runs
from thoughtlens.viz.app.sending import sent
from thoughtlens.viz.app.views import Address
from visits import SCRIPT, visiting

HARMFUL, BENIGN = "made/000002", "made/000003"


def asked(visit) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(visit.page.url).query).items()}


def chip(visit, key: str) -> str:
    visit.page.locator(f"#chip-{key}").wait_for()
    return visit.page.locator(f"#chip-{key} b").inner_text()


def test_a_cell_sets_layer_and_span_everywhere(visit):
    visit.open("tab=layers")
    visit.click("auroc_by_layer_and_span", "probe", 4, 2)
    assert chip(visit, "layer") == "2" and chip(visit, "span") == "thought"
    assert asked(visit) == {"tab": "layers", "layer": "2", "span": "thought"}
    visit.settled()
    assert visit.page.locator("#sheet-0-auroc_over_layers h3").inner_text() == "AUROC over layers at thought"
    assert visit.page.input_value("#set-span") == "thought" and visit.page.input_value("#set-layer") == "2"
    marked = "selector => document.querySelector(selector).layout.shapes.filter((shape) => shape.line.width > 1).map((shape) => shape.x0)"
    assert visit.page.evaluate(marked, visit.plot("auroc_over_layers")) == [2]
    assert len(visit.page.evaluate(marked, visit.plot("auroc_by_layer_and_span"))) == 1
    visit.click("auroc_by_layer_and_span", "probe", 4, 3)
    visit.page.locator("#chip-layer b", has_text="3").wait_for()
    assert visit.page.evaluate(marked, visit.plot("auroc_over_layers")) == [3]
    visit.page.go_back()
    visit.page.locator("#chip-layer b", has_text="2").wait_for()
    visit.tab("geometry")
    assert "thought, layer 2" in visit.page.locator("#sheet-0-points .note").inner_text()
    assert visit.page.locator("#set-layer-control .told").inner_text() == "2"
    visit.page.go_back()
    visit.page.locator('#panel[aria-labelledby="tab-layers"]').wait_for()
    visit.page.go_back()
    visit.page.locator("#chip-layer").wait_for(state="detached")
    assert asked(visit) == {"tab": "layers"}


def test_a_category_and_an_attack_filter_and_rates_are_counted_again(visit, made):
    collapse = pd.read_parquet(made / "tables" / "collapse.parquet")
    visit.open()
    data = visit.page.evaluate(
        "selector => document.querySelector(selector)._fullData.map(t => [t.name, t.customdata, t.x, t.y])", visit.plot("tax_by_category")
    )
    name, told, x, y = next(row for row in data if row[0] == "reasoning")
    at = next(index for index, one in enumerate(told) if one[0] in set(collapse["category"]) - {"all"})
    visit.click("tax_by_category", "reasoning", x[at], y[at])
    assert chip(visit, "category") == told[at][0] == asked(visit)["category"] == visit.page.input_value("#filter-category")
    visit.settled()
    assert "counted again" in visit.page.locator("#sheet-0-tax_by_category .note").inner_text()
    rows_of = "selector => document.querySelector(selector).layout.yaxis.ticktext.map(text => text.replace(/<[^>]*>/g, ' '))"
    drawn = visit.page.evaluate(rows_of, visit.plot("tax_by_category"))
    assert [" ".join(name.split()) for name in drawn] == ["all categories", told[at][0]]
    rows = collapse[(collapse["metric"] == "attack_success") & (collapse["channel"] == "answer") & (collapse["model"] == "reasoning")]
    want = rows[
        (rows["category"] == told[at][0]) & (rows["attack"] == "all") & (rows["benchmark"] == "all") & (rows["condition"] == "unsteered")
    ]
    assert f"n = {want['n'].iloc[0]:.0f}" in visit.page.locator("#sheet-0-tax_by_category figcaption").inner_text().replace("\u00a0", " ")
    heat = visit.page.evaluate(
        "selector => document.querySelector(selector)._fullData[0].customdata.map(line => line[0][0])",
        visit.plot("attack_success_by_attack"),
    )
    trace = visit.page.evaluate("selector => document.querySelector(selector)._fullData[0].name", visit.plot("attack_success_by_attack"))
    visit.click("attack_success_by_attack", trace, 0, 1)
    assert chip(visit, "attack") == heat[1] != "all"
    visit.page.click("#chip-category")
    visit.page.locator("#chip-category").wait_for(state="detached")
    assert asked(visit) == {"attack": heat[1]} and visit.page.input_value("#filter-category") == ""
    visit.page.click("#chip-clear")
    visit.page.locator("#chip-attack").wait_for(state="detached")
    assert asked(visit) == {}


def test_a_point_opens_its_thought(visit):
    visit.open("tab=geometry&span=thought&layer=3")
    first = "selector => { const t = document.querySelector(selector)._fullData[0]; return [t.name, t.x[0], t.y[0], t.customdata[0]]; }"
    name, x, y, told = visit.page.evaluate(first, visit.plot("points"))
    visit.click("points", name, x, y)
    visit.page.locator("#asked-0 h3").wait_for()
    assert asked(visit)["prompt"] == visit.page.locator("#asked-0 h3").inner_text() == told[0]
    assert visit.page.input_value("#reader-0-left") == (told[1] if told[2] == "unsteered" else f"{told[1]} @ {told[2]}")


def test_a_link_restores_everything_in_a_fresh_page(visit, profile, address):
    query = f"tab=thoughts&layer=1&model=reasoning&search=the&prompt={HARMFUL.replace('/', '%2F')}&shown=1&left=safe&right=base"
    visit.open(query)
    assert visit.page.input_value("#filter-model") == "reasoning" and visit.page.input_value("#filter-search") == "the"
    assert visit.page.locator("#asked-0 h3").inner_text() == HARMFUL
    assert visit.page.input_value("#reader-0-left") == "safe" and visit.page.input_value("#reader-0-right") == "base"
    assert visit.page.locator("#reader-0-layer-control .told").inner_text() == "1"
    assert visit.page.get_attribute("#shown", "aria-checked") == "true"
    visit.page.select_option("#reader-0-right", "reasoning @ steered")
    visit.page.locator(".side h4", has_text="reasoning @ steered").wait_for()
    with visiting(profile, address) as other:
        other.open(urlsplit(visit.page.url).query)
        assert other.page.locator(".sides").inner_text() == visit.page.locator(".sides").inner_text()


def test_search_and_choices_find_prompts_and_say_how_many(visit, made):
    prompts, answers = (pd.read_parquet(made / "tables" / f"{name}.parquet") for name in ("prompts", "answers"))
    both = answers.merge(prompts, on="prompt_id")
    word = str(prompts["goal"].iloc[5]).split()[0]
    held = both[["text", "goal", "thought", "answer"]].apply(lambda column: column.str.contains(word, regex=False)).any(axis=1)
    visit.open("tab=thoughts")
    visit.page.locator("#filter-search").press_sequentially(word.upper(), delay=5)
    visit.page.locator("#count", has_text=f"{held.sum():,} answers match").wait_for()
    visit.page.select_option("#filter-attack", "roleplay")
    visit.page.locator("#count", has_text=f"{(held & (both['attack'] == 'roleplay')).sum():,} answers match").wait_for()
    assert asked(visit) == {"tab": "thoughts", "search": word.upper(), "attack": "roleplay"}
    visit.page.select_option("#filter-attack", "")
    visit.page.locator("#next-0").click()
    visit.page.locator(".pages .at", has_text="2 of").wait_for()
    assert asked(visit)["page"] == "1"


def test_text_stays_text_and_harmful_text_waits_until_it_is_asked_for(visit):
    visit.open("tab=thoughts&prompt=made%2F000000")
    prompt = visit.page.locator("#asked-0 .veil")
    assert prompt.evaluate("e => [getComputedStyle(e).filter, getComputedStyle(e).userSelect, e.ariaHidden]") == [
        "blur(7px)",
        "none",
        "true",
    ]
    assert visit.page.locator("#sides-0 .tl-reader").first.evaluate("e => e.closest('.veil') !== null")
    assert visit.page.get_by_text("prompt hidden").count() == 1
    visit.keep("hidden")
    visit.page.click("#shown")
    visit.page.locator("#asked-0 .unveiled", has_text=SCRIPT).wait_for()
    assert visit.page.locator("#asked-0 .prompt").inner_text() == SCRIPT
    assert visit.page.locator(".veil").count() == 0
    assert visit.page.evaluate("window.hacked === undefined")
    visit.page.click(f'[id="open-0-{BENIGN}"]')
    visit.page.locator("#asked-0 h3", has_text=BENIGN).wait_for()
    visit.page.click("#shown")
    visit.page.locator("#shown[aria-checked=false]").wait_for()
    assert visit.page.locator("#asked-0 .veil").count() == 0
    visit.tab("geometry")
    hover = "selector => document.querySelector(selector)._fullData.flatMap(t => t.customdata.map(d => [t.name, d[3]]))"
    texts = visit.page.evaluate(hover, visit.plot("points"))
    assert all(("(hidden)" in text) == (name != "benign") for name, text in texts) and {name for name, _ in texts} >= {"benign", "harmful"}


def test_pictures_are_shown_and_tokens_are_coloured_and_marked(visit, made):
    visit.open(f"tab=thoughts&shown=1&prompt={HARMFUL.replace('/', '%2F')}")
    picture = visit.page.locator("#asked-0 img")
    picture.wait_for()
    assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") > 0
    read = pd.read_parquet(made / "tables" / "readouts.parquet")
    mine = read[(read["prompt_id"] == HARMFUL) & (read["model"] == "reasoning") & (read["layer"] == 3)]
    for side, condition in enumerate(("unsteered", "steered")):
        tokens = mine[mine["condition"] == condition]
        shown = visit.page.locator("#sides-0 .side").nth(side)
        assert shown.locator(".tl-token").count() == len(tokens)
        assert shown.locator(".tl-fired").count() == tokens["fired"].sum()
    assert mine["fired"].any()


def test_the_keyboard_reaches_everything(visit):
    page = visit.open("tab=thoughts").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the figures"
    page.focus("#tab-thoughts")
    page.keyboard.press("ArrowRight")
    page.locator('#panel[aria-labelledby="tab-geometry"]').wait_for()
    visit.settled()
    assert page.evaluate("document.activeElement.id") == "tab-geometry"
    page.keyboard.press("Home")
    page.locator('#panel[aria-labelledby="tab-collapse"]').wait_for()
    page.keyboard.press("ArrowLeft")
    page.locator('#panel[aria-labelledby="tab-provenance"]').wait_for()
    assert page.evaluate("document.activeElement.id") == "tab-provenance"
    visit.tab("thoughts")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-search"
    page.keyboard.press("Tab")
    order = []
    for _ in range(3):
        order.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert order == ["shown", "open-0-made/000000", "open-0-made/000001"]
    page.focus("#shown")
    page.keyboard.press("Space")
    page.locator("#shown[aria-checked=true]").wait_for()
    visit.settled()
    assert page.evaluate("document.activeElement.id") == "shown"
    page.focus('[id="open-0-made/000001"]')
    page.keyboard.press("Enter")
    page.locator("#asked-0 h3").wait_for()
    page.wait_for_timeout(50)
    assert page.evaluate("document.activeElement.id") == "reader-0"
    page.focus("#reader-0-layer")
    page.keyboard.press("ArrowLeft")
    page.locator("#chip-layer").wait_for()
    assert asked(visit)["layer"] == "2" and page.evaluate("document.activeElement.id") == "reader-0-layer"
    assert page.evaluate("[...document.querySelectorAll('select, input')].every(e => e.labels.length === 1)")


def test_traces_that_the_page_lost_are_sent_again(visit, made):
    names = list(sent(Runs([made]).columns(), Address.read("tab=geometry"), "light")["traces"])
    visit.open()
    visit.page.evaluate("names => dash_clientside.set_props('there', { data: names })", names)  # the server counts on them
    visit.tab("geometry")
    assert visit.page.locator("#sheet-0-points .points path").count() > 10


def test_a_slider_that_is_dragged_and_a_list_with_the_focus_stay_the_same_elements(visit):
    visit.open("tab=geometry&layer=0")
    box = visit.page.locator("#set-layer").bounding_box()
    visit.page.evaluate("window.kept = ['set-layer', 'set-color'].map((id) => document.getElementById(id))")
    places = [box["x"] + box["width"] * share for share in (0.02, 0.34, 0.66)]
    visit.page.mouse.move(places[0], box["y"] + box["height"] / 2)
    visit.page.mouse.down()
    for layer, place in enumerate(places[1:], 1):
        visit.page.mouse.move(place, box["y"] + box["height"] / 2, steps=4)
        visit.page.locator("#chip-layer b", has_text=str(layer)).wait_for()
        visit.settled()
        assert asked(visit)["layer"] == str(layer) == visit.page.locator("#set-layer-told").inner_text()
    visit.page.mouse.up()
    visit.page.focus("#set-color")
    visit.page.keyboard.press("ArrowDown")
    visit.page.locator("#set-color[data-chosen=verdict]").wait_for()
    assert visit.page.evaluate("window.kept.every((one) => one.isConnected)")
    assert visit.page.evaluate("document.activeElement.id") == "set-color" and visit.page.input_value("#set-color") == "verdict"
    visit.page.go_back()
    visit.page.locator("#set-color[data-chosen=harmful]").wait_for()
    assert visit.page.input_value("#set-color") == "harmful"
