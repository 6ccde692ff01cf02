//! The command palette, the keyboard shortcuts and the inbox, in a real Chromium and with keys only.

use serde_json::json;

use crate::console::{signed_in, with_people};
use crate::console_look::{look, writes};
use crate::support::browser::{Browser, axe, has_chromium};

const CTRL: u32 = 2;
const SHIFT: u32 = 8;

/// Presses a key, with its text if it has one character.
pub async fn press(browser: &mut Browser, key: &str, modifiers: u32) {
    let text = match key {
        "Enter" => "\r",
        key if key.chars().count() == 1 && modifiers == 0 => key,
        _ => "",
    };
    let code = match key {
        "Enter" => 13,
        "Escape" => 27,
        "Tab" => 9,
        "ArrowUp" => 38,
        "ArrowDown" => 40,
        key => key.to_uppercase().bytes().next().map_or(0, u32::from),
    };
    for kind in ["keyDown", "keyUp"] {
        let event = json!({
            "type": kind, "key": key, "text": if kind == "keyDown" { text } else { "" },
            "windowsVirtualKeyCode": code, "modifiers": modifiers,
        });
        browser.devtools("Input.dispatchKeyEvent", event).await;
    }
}

async fn type_text(browser: &mut Browser, text: &str) {
    for key in text.chars() {
        press(browser, &key.to_string(), 0).await;
    }
}

/// Waits for a page with its scripts.
async fn until_at(browser: &mut Browser, path: &str) {
    let there =
        format!("location.pathname === '{path}' && document.documentElement?.dataset.ready === ''");
    browser.until(&there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_palette_and_the_shortcuts_work_with_keys_only() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/").await;
    let open = "document.getElementById('palette').open";
    let rows = "document.querySelectorAll('#palette-list li').length";
    let chosen = "document.querySelector('#palette-list [aria-selected=true]')";

    press(&mut browser, "k", CTRL).await;
    browser.until(open).await;
    browser.until("document.activeElement.matches('#palette input')").await;
    // Keys stay in the dialog, and Escape closes it.
    for _ in 0..3 {
        press(&mut browser, "Tab", 0).await;
    }
    browser.until("!document.querySelector('#main').contains(document.activeElement)").await;
    press(&mut browser, "Escape", 0).await;
    browser.until(&format!("!{open}")).await;

    press(&mut browser, "k", CTRL).await;
    browser.until(&format!("{open} && {rows} > 5")).await;
    type_text(&mut browser, "zzz").await;
    browser.until(&format!("{chosen}.textContent.includes('zzz')")).await;
    press(&mut browser, "Escape", 0).await;
    browser.until(&format!("!{open}")).await;
    // A phone number is not offered as the UUID of a call.
    press(&mut browser, "k", CTRL).await;
    browser.until(&format!("{open} && {rows} > 5")).await;
    type_text(&mut browser, "918035737458").await;
    browser.until(&format!("{chosen}.textContent.includes('918035737458') && {rows} === 2")).await;
    press(&mut browser, "Escape", 0).await;
    browser.until(&format!("!{open}")).await;
    press(&mut browser, "k", CTRL).await;
    browser.until(&format!("{open} && {rows} > 5")).await;
    type_text(&mut browser, "recor").await;
    browser.until(&format!("{chosen}.textContent.includes('Recordings')")).await;
    let active = "document.querySelector('#palette input').getAttribute('aria-activedescendant')";
    browser.until(&format!("{chosen}.id === {active}")).await;
    press(&mut browser, "ArrowDown", 0).await;
    browser.until(&format!("{chosen}.textContent.includes('recor')")).await;
    press(&mut browser, "ArrowUp", 0).await;
    press(&mut browser, "Enter", 0).await;
    until_at(&mut browser, "/console/recordings/").await;

    // A shortcut of two keys, the sheet, and the switch for shortcuts of single characters.
    press(&mut browser, "g", 0).await;
    press(&mut browser, "e", 0).await;
    until_at(&mut browser, "/console/errors/").await;
    let sheet = "document.getElementById('shortcuts').open";
    press(&mut browser, "?", 0).await;
    browser.until(sheet).await;
    browser.until("document.getElementById('shortcuts').innerText.includes('Recordings')").await;
    browser.click("#shortcuts input").await;
    press(&mut browser, "Escape", 0).await;
    browser.until(&format!("!{sheet}")).await;
    for key in ["?", "g", "c"] {
        press(&mut browser, key, 0).await;
    }
    press(&mut browser, "k", CTRL).await;
    browser.until(open).await;
    assert_eq!(browser.eval(sheet).await, false);
    assert_eq!(browser.eval("location.pathname").await, "/console/errors/");
    type_text(&mut browser, "keyboard").await;
    press(&mut browser, "Enter", 0).await;
    browser.until(sheet).await;
    browser.click("#shortcuts input").await;
    press(&mut browser, "Escape", 0).await;
    browser.until(&format!("!{sheet}")).await;

    // `/` goes to the search field, and keys that a field takes are not shortcuts.
    browser.visit("/console/inbox/").await;
    press(&mut browser, "/", 0).await;
    browser.until("document.activeElement.matches('main input[type=search]')").await;
    type_text(&mut browser, "g?").await;
    browser.until("document.activeElement.value === 'g?'").await;
    assert_eq!(browser.eval(sheet).await, false);

    // An agent is not offered pages of owners.
    let mut ravi = signed_in(&world, "ravi").await;
    ravi.visit("/console/").await;
    press(&mut ravi, "k", CTRL).await;
    ravi.until(open).await;
    let names = ravi.eval("document.getElementById('palette').textContent").await;
    assert!(!names.as_str().expect("text").contains("Audit"), "{names}");

    let Some(axe) = axe() else { return };
    let mut found = Vec::new();
    browser.visit("/console/").await;
    press(&mut browser, "k", CTRL).await;
    browser.until(open).await;
    look(&mut browser, &axe, "palette", &mut found).await;
    press(&mut browser, "Escape", 0).await;
    browser.until(&format!("!{open}")).await;
    press(&mut browser, "?", 0).await;
    browser.until(sheet).await;
    look(&mut browser, &axe, "shortcuts", &mut found).await;
    assert!(found.is_empty(), "{found:#?}");
    assert!(browser.errors.is_empty(), "{:#?}", browser.errors);
}

/// Conversations are beside the open one, j and k go through them, Enter sends, and Shift+Enter
/// starts a new line.
#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_has_two_panes_and_works_with_keys_only() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let users = [("Mira", "919812340001"), ("Noor", "919812340002"), ("Omar", "919812340003")];
    for (name, user) in users {
        let order = json!({"message": "<b>Hello</b>", "from": user, "name": name});
        writes(&world, &order).await;
    }
    let user_of = |name: &str| {
        let found = users.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no user {name}")).1
    };
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/inbox/").await;
    browser.until("document.querySelectorAll('#conversations a.row-link').length === 3").await;
    let badge =
        |count: &str| format!("document.getElementById('unread-inbox').textContent === '{count}'");
    browser.until(&badge("3")).await;
    // Messages of the same second have no fixed order.
    let names = browser
        .eval("[...document.querySelectorAll('#conversations .parties strong')].map((e) => e.textContent).join(' ')")
        .await;
    let names: Vec<&str> = names.as_str().expect("names").split(' ').collect();
    press(&mut browser, "j", 0).await;
    press(&mut browser, "j", 0).await;
    press(&mut browser, "k", 0).await;
    press(&mut browser, "Enter", 0).await;
    let opened = |name: &str| {
        format!(
            "document.documentElement?.dataset.ready === '' \
             && document.querySelector('.pane [aria-current]')?.textContent.includes('{name}') \
             && document.querySelector('#chat-head').textContent.includes('{name}')"
        )
    };
    browser.until(&opened(names[0])).await;
    browser.until("document.querySelectorAll('.pane .unread').length === 2").await;
    press(&mut browser, "j", 0).await;
    browser.until(&opened(names[1])).await;
    press(&mut browser, "j", 0).await;
    browser.until(&opened(names[2])).await;
    press(&mut browser, "k", 0).await;
    browser.until(&opened(names[1])).await;

    browser.eval("document.getElementById('text').focus()").await;
    press(&mut browser, "Enter", 0).await;
    type_text(&mut browser, "jk").await;
    press(&mut browser, "Enter", SHIFT).await;
    type_text(&mut browser, "two").await;
    browser.until("document.getElementById('text').value === 'jk\\ntwo'").await;
    press(&mut browser, "Enter", 0).await;
    browser
        .until(
            "document.querySelector('#timeline .ours .said')?.textContent === 'jk\\ntwo' \
             && document.getElementById('text').value === ''",
        )
        .await;
    assert!(
        browser.eval("document.querySelectorAll('#timeline .ours').length === 1").await == true
    );
    // A new message appears in the other pane without a reload.
    let order = json!({"message": "Anyone there?", "from": user_of(names[1]), "name": names[1]});
    writes(&world, &order).await;
    browser.until("document.querySelector('.pane')?.textContent.includes('Anyone there?')").await;
    // A page that shows the message has marked it as read.
    let shown = "document.querySelector('#timeline')?.textContent.includes('Anyone there?')";
    browser.until(shown).await;
    // The navigation of every page counts conversations with unread messages.
    browser.visit("/console/playground/").await;
    browser.until(&format!("document.documentElement.dataset.ready === '' && {}", badge(""))).await;
    assert_eq!(browser.eval("document.getElementById('unread-inbox').hidden").await, true);
    let order = json!({"message": "Hello?", "from": user_of(names[2]), "name": names[2]});
    writes(&world, &order).await;
    browser.until(&badge("1")).await;
    browser.visit("/console/inbox/").await;
    browser.click("#conversations tr.unread a.row-link").await;
    browser.until(&opened(names[2])).await;
    browser.until(&badge("")).await;

    let Some(axe) = axe() else { return };
    let mut found = Vec::new();
    look(&mut browser, &axe, "inbox-panes", &mut found).await;
    browser.size(1680, 900).await;
    crate::console_look::picture(&mut browser, "inbox-panes-1680").await;
    assert!(found.is_empty(), "{found:#?}");
    assert!(browser.errors.is_empty(), "{:#?}", browser.errors);
}
