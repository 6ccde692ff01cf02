//! Workflows in the console, step by step in a real Chromium with the simulated Meta: chats,
//! numbers, keys, webhooks, agents, the playground.

use serde_json::{Value, json};

use crate::console::{Session, call, people, signed_in, with_people};
use crate::console_look::writes;
use crate::console_talk::api;
use crate::outbound::{World, world};
use crate::support::browser::{Browser, READY, has_chromium};
use crate::support::http;
use crate::support::node::NUMBER;

const USER: &str = "919812345678";

/// Fills in the sign-in form that is shown, and waits until it has led to `path`.
async fn sign_in_again(browser: &mut Browser, path: &str) {
    browser.until(&format!("location.pathname === '/console/sign-in' && {READY}")).await;
    browser.fill("[name=name]", "asha").await;
    browser.fill("[name=password]", crate::console::PASSWORD).await;
    browser.click("form.stack button").await;
    browser.until(&format!("location.pathname === '{path}' && {READY}")).await;
}

/// A message, a note and the changes of a form outlast the end of the session.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_outlasts_the_session() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    writes(&world, &json!({"message": "Where is it?", "from": USER, "name": "Asha Verma"})).await;
    let mut browser = signed_in(&world, "asha").await;
    let end_session = async || {
        let asha = Session::of(&world, "asha").await;
        assert_eq!(asha.post("/console/sign-out", &[("everywhere", "1")]).await.status, 303);
    };
    browser.visit("/console/inbox/").await;
    browser.click("#conversations a.row-link").await;
    browser.until(&format!("document.querySelector('#text') && {READY}")).await;
    let chat = browser.eval("location.pathname").await.as_str().unwrap().to_owned();
    end_session().await;
    let (message, note) = ("It ships today, promised.", "Called the depot.");
    browser.eval("document.querySelector('form.note').closest('details').open = true").await;
    browser.fill("[name=note]:not([type=hidden])", note).await;
    browser.fill("#text", message).await;
    browser.click(".composer [value=send]").await;
    browser.until("document.querySelector('#signed-out')?.checkVisibility()").await;
    assert_eq!(browser.eval("document.querySelector('#text').value").await, message);
    crate::console_look::picture(&mut browser, "signed-out").await;
    browser.click("#signed-out a").await;
    sign_in_again(&mut browser, &chat).await;
    assert_eq!(browser.eval("document.querySelector('#text').value").await, message);
    let noted = "document.querySelector('form.note textarea').checkVisibility() && document.querySelector('form.note textarea').value";
    assert_eq!(browser.eval(noted).await, note);
    browser.click(".composer [value=send]").await;
    browser.says("#timeline", message).await;

    // A form that the browser submits itself.
    let number = format!("/console/numbers/{NUMBER}/");
    browser.visit(&number).await;
    end_session().await;
    browser.fill("[name=alias]", "Front desk").await;
    browser.click("[value=save]").await;
    sign_in_again(&mut browser, &number).await;
    assert_eq!(browser.eval("document.querySelector('[name=alias]').value").await, "Front desk");
    // Drafts are for the next page only. The note, which was not sent, stays with its conversation.
    assert_eq!(browser.eval("Object.keys(sessionStorage)").await, json!(["offhook-replies"]));
}

const NEW: &str = "918035737999";

pub async fn orders(world: &World, door: &str, order: Value) {
    let answer =
        http::send("POST", &format!("{}/_sim/{door}", world.sim.url()), &[], order.to_string())
            .await;
    assert_eq!(answer.status, 204, "{door}: {}", answer.text());
}

impl Browser {
    /// Waits until a toast contains `words`.
    pub async fn until_toast(&mut self, words: &str) {
        self.until(&format!("[...document.querySelectorAll('.toast')].some((t) => t.textContent.includes({words:?}))"))
            .await;
    }

    /// Clicks the button or link labelled `words` within an element.
    pub async fn press(&mut self, within: &str, words: &str) {
        // Find and click in one script, because the page may change in between.
        let find = format!(
            "[...document.querySelectorAll({within:?})].flatMap((e) => [...e.querySelectorAll('button, a, summary')]).find((b) => \
             b.textContent.trim() === {words:?} && !b.disabled)"
        );
        self.until(&format!("{READY} && ((found) => found && (found.click(), true))({find})"))
            .await;
    }

    /// Like [`Browser::press`], for elements that load a page. Waits until it has loaded.
    pub async fn press_and_go(&mut self, within: &str, words: &str) {
        self.eval("globalThis.before = 1").await;
        self.press(within, words).await;
        self.until(&format!("typeof before === 'undefined' && {READY}")).await;
    }

    pub async fn says(&mut self, within: &str, words: &str) {
        self.until(&format!("document.querySelector({within:?})?.textContent.includes({words:?})"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_18_to_s3_23_a_conversation_from_its_template_to_its_end() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    writes(
        &world,
        &json!({"message": "Hello, is anybody there?", "from": USER, "name": "Asha Verma"}),
    )
    .await;
    let asha = Session::of(&world, "asha").await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/inbox/").await;
    browser.says("#conversations", "is anybody there?").await;
    browser.click("#conversations a.row-link").await;
    browser.until(&format!("{READY} && document.querySelector('.composer #text')")).await;
    let chat = browser.eval("location.pathname").await.as_str().unwrap().to_owned();
    browser.eval("globalThis.marked = 1").await;

    // The message is sent, and its status updates live.
    browser.fill("#text", "Yes: Asha at the desk.").await;
    browser.press(".composer", "Send").await;
    browser.says(".bubble.ours:last-of-type", "Asha at the desk").await;
    browser.says(".bubble.ours:last-of-type", "Read").await;
    // An error from Graph is shown at the message.
    orders(
        &world,
        "messages/failures",
        json!({"code": 131_026, "details": "Receiver is incapable"}),
    )
    .await;
    browser.fill("#text", "This one is lost.").await;
    browser.press(".composer", "Send").await;
    browser
        .until("document.querySelector('.bubble.failed .error')?.textContent.includes('Receiver is incapable')")
        .await;
    browser.says(".bubble.failed .error", "Check the format of the number").await;
    browser.says(".bubble.failed .error", "131026").await;
    // Its notification leads to the conversation.
    let notices = browser
        .eval("fetch('/console/notifications/').then((r) => r.text()).then((t) => new DOMParser().parseFromString(t, 'text/html').querySelector('#notices .feed a').getAttribute('href'))")
        .await;
    let here = browser.eval("location.pathname").await;
    assert_eq!(notices, here);
    // An image is shown inline.
    let order = json!({"message": {"type": "image", "image": {"mime_type": "image/png", "caption": "My parcel"}},
        "file": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "from": USER});
    writes(&world, &order).await;
    browser.until("document.querySelector('.picture img')?.naturalWidth === 1").await;

    // Insights work without a model, from a simple calculation.
    browser.press("#about", "Generate insights").await;
    browser.until("document.querySelector('#about .pairs dd .pill')").await;
    // No agent answers, so there is none to turn off.
    let has_none = "document.querySelector('#about button[value^=ai-]') === null";
    assert_eq!(browser.eval(has_none).await, true);

    // Ask the user for permission to call; the user answers.
    browser.press("#about", "Request permission").await;
    browser.says("#about", "Requested").await;
    orders(&world, "permissions/answer", json!({"user": USER, "answer": "accept"})).await;
    browser.says("#about", "Granted until").await;
    browser.says("#timeline", "Call permission requested").await;
    browser.says("#timeline", "Call permission granted").await;
    assert_eq!(
        browser.eval("globalThis.marked").await,
        1,
        "all of it without loading the page again"
    );

    // A call placed from the chat appears in it afterwards.
    if browser.eval("Boolean(document.querySelector('#about a[href$=\"/call/\"]'))").await == true {
        world.app.xml("/unused", "<Response><Speak>Hello.</Speak></Response>");
        browser.click("#about a[href$='/call/']").await;
        browser.press("dialog.panel", "Call").await;
        browser.until("location.pathname.startsWith('/console/calls/')").await;
        let uuid =
            browser.eval("location.pathname.split('/')[3]").await.as_str().unwrap().to_owned();
        world.node.record(&uuid).await;
        browser.visit(&chat).await;
        browser
            .until(&format!(
                "document.querySelector('#timeline a[href=\"/console/calls/{uuid}/\"]')"
            ))
            .await;
    }

    // Only permitted status changes are offered.
    for (word, now) in [("Close", "Closed"), ("Archive", "Archived"), ("Reopen", "Open")] {
        browser.press_and_go("#chat-head", word).await;
        browser.says("#chat-head .pill", now).await;
    }
    // Deleting asks for confirmation first.
    browser.press("#chat-head", "Delete").await;
    browser.until("document.querySelector('#ask[open]')").await;
    browser.press("#ask", "Cancel").await;
    assert_eq!(asha.get(&chat).await.status, 200);
    browser.press("#chat-head", "Delete").await;
    browser.press("#ask", "Confirm").await;
    browser.until("location.pathname === '/console/inbox/'").await;
    assert_eq!(asha.get(&chat).await.status, 404);
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_19_outside_its_window_a_conversation_takes_a_template() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    // A user who was called but never wrote has no open messaging window.
    let uuid = call(&world).await;
    world.node.record(&uuid).await;
    let mut browser = signed_in(&world, "ravi").await;
    browser.visit("/console/inbox/").await;
    browser.click("#conversations a.row-link").await;
    browser.until("document.querySelector('.composer')").await;
    browser.press(".composer.shut", "Send a template").await;
    browser.until("document.querySelectorAll('dialog.panel .templates button').length === 5").await;
    assert_eq!(
        browser
            .eval("document.querySelector('dialog.panel').textContent.includes('free_money')")
            .await,
        false,
        "Meta rejected it"
    );
    browser.says("dialog.panel", "Contains a location.").await;
    browser.fill("dialog.panel [name=q]", "order").await;
    browser.press("dialog.panel", "Search").await;
    browser.until("document.querySelectorAll('dialog.panel .templates button').length === 1").await;
    crate::console_look::picture(&mut browser, "templates").await;
    browser.click("dialog.panel .templates button").await;
    browser.says("dialog.panel .preview", "Hello {{1}}, your order arrives on {{2}}.").await;
    browser.press("dialog.panel", "Other templates").await;
    browser.until("document.querySelectorAll('dialog.panel .templates button').length === 5").await;
    browser.fill("dialog.panel [name=q]", "order").await;
    browser.press("dialog.panel", "Search").await;
    browser.until("document.querySelectorAll('dialog.panel .templates button').length === 1").await;
    browser.click("dialog.panel .templates button").await;
    browser.says("dialog.panel .preview", "Hello {{1}}, your order arrives on {{2}}.").await;
    for (field, value) in [("v0", "4711"), ("v1", "Asha"), ("v2", "Tuesday"), ("v3", "4711")] {
        browser.fill(&format!("dialog.panel [name={field}]"), value).await;
    }
    browser.says("dialog.panel .preview", "Order 4711").await;
    browser.says("dialog.panel .preview", "Hello Asha, your order arrives on Tuesday.").await;
    crate::console_look::picture(&mut browser, "template-preview").await;
    // Enter in a field sends.
    browser.eval("document.querySelector('dialog.panel [name=v3]').focus()").await;
    crate::console_keys::press(&mut browser, "Enter", 0).await;
    browser.says(".bubble.ours:last-of-type", "Template").await;
    browser.says(".bubble.ours:last-of-type", "Hello Asha, your order arrives on Tuesday.").await;
    browser.says(".bubble.ours:last-of-type", "Read").await;
    // The user replies, so free-form messages are allowed.
    writes(&world, &json!({"message": "Thank you", "from": USER})).await;
    browser.until("document.querySelector('.composer #text')").await;
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_has_notes_and_a_person_who_takes_care_of_it() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    writes(&world, &json!({"message": "My parcel is broken", "from": USER, "name": "Asha Verma"}))
        .await;
    let mut ravi = signed_in(&world, "ravi").await;
    ravi.visit("/console/inbox/").await;
    ravi.click("#conversations a.row-link").await;
    ravi.until("document.querySelector('.composer #text')").await;
    let chat = ravi.eval("location.pathname").await.as_str().unwrap().to_owned();
    let mut asha = signed_in(&world, "asha").await;
    asha.visit(&chat).await;

    ravi.press("#composer", "Add a private note").await;
    ravi.fill("#composer [name=note]", "Sounded upset on the phone").await;
    ravi.press("#composer", "Save note").await;
    for browser in [&mut ravi, &mut asha] {
        browser.says(".bubble.note", "Private note · ravi").await;
        browser.says(".bubble.note .said", "Sounded upset on the phone").await;
    }
    // A reply that was not sent is there again.
    ravi.fill("#composer #text", "We send you a new one").await;
    ravi.visit("/console/inbox/").await;
    ravi.visit(&chat).await;
    ravi.until("document.querySelector('#composer #text')?.value === 'We send you a new one'")
        .await;
    ravi.press("#composer", "Send").await;
    ravi.says(".bubble.ours", "We send you a new one").await;
    // Everybody sees who wrote it.
    for browser in [&mut ravi, &mut asha] {
        browser.says(".bubble.ours > .of", "· ravi").await;
    }
    asha.says(".pane-text", "ravi: We send you a new one").await;
    ravi.says(".pane-text", "You: We send you a new one").await;
    ravi.visit(&chat).await;
    ravi.until("document.querySelector('#composer #text')?.value === ''").await;
    ravi.press("#about", "Assign to me").await;
    asha.until("document.querySelector('#about select').selectedOptions[0].textContent === 'ravi'")
        .await;
    ravi.until("document.querySelector('#about select').selectedOptions[0].textContent === 'ravi'")
        .await;
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390)] {
        asha.size(width, 1000).await;
        asha.prefer(scheme).await;
        crate::console_look::picture(&mut asha, &format!("notes-{scheme}-{width}")).await;
    }
    asha.size(1280, 900).await;
    for (word, rows) in [("me", 0), ("none", 0), ("", 1)] {
        asha.visit(&format!("/console/inbox/?assignee={word}")).await;
        let count = asha.eval("document.querySelectorAll('#conversations .row-link').length").await;
        assert_eq!(count, rows, "{word}");
    }
    crate::console_look::picture(&mut asha, "assigned").await;
    ravi.visit("/console/inbox/?assignee=me").await;
    ravi.says("#conversations", "ravi").await;
    // An admin deletes the note of another person.
    asha.visit(&chat).await;
    asha.press(".bubble.note", "Delete").await;
    asha.press("#ask", "Confirm").await;
    asha.until("!document.querySelector('.bubble.note')").await;
    assert!(ravi.errors.is_empty() && asha.errors.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_creates_labels_and_an_agent_gives_them_to_conversations() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    writes(&world, &json!({"message": "My parcel is broken", "from": USER, "name": "Asha Verma"}))
        .await;
    let mut asha = signed_in(&world, "asha").await;
    asha.visit("/console/inbox/settings/").await;
    for (name, colour) in [("Refund", "orange"), ("VIP", "purple")] {
        asha.fill(".add [name=name]", name).await;
        asha.eval(&format!("document.querySelector('.add [name=colour]').value = '{colour}'"))
            .await;
        asha.press_and_go(".add", "Create label").await;
        asha.says(".label-list", name).await;
    }
    crate::console_look::picture(&mut asha, "labels").await;
    let mut ravi = signed_in(&world, "ravi").await;
    ravi.visit("/console/inbox/settings/").await;
    assert_eq!(ravi.eval("Boolean(document.querySelector('.label-list form, .add'))").await, false);
    ravi.visit("/console/inbox/").await;
    ravi.click("#conversations a.row-link").await;
    ravi.press("#about", "Change labels").await;
    ravi.click(".label-form [type=checkbox]").await;
    ravi.press(".label-form", "Save").await;
    ravi.says("#about .labels", "Refund").await;
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("dark", 390)] {
        ravi.size(width, 1000).await;
        ravi.prefer(scheme).await;
        crate::console_look::picture(&mut ravi, &format!("labelled-{scheme}-{width}")).await;
    }
    asha.visit("/console/inbox/").await;
    asha.says("#conversations .labels", "Refund").await;
    crate::console_look::picture(&mut asha, "labelled-list").await;
    asha.eval("document.querySelector('[name=label]').selectedIndex = 2").await;
    asha.press_and_go(".filters", "Filter").await;
    assert_eq!(
        asha.eval("document.querySelectorAll('#conversations .row-link').length").await,
        0,
        "no VIP"
    );
    assert!(ravi.errors.is_empty() && asha.errors.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_outlast_live_updates_and_keep_what_somebody_else_saved() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    writes(&world, &json!({"message": "My parcel is broken", "from": USER, "name": "Asha Verma"}))
        .await;
    let label = async |name: &str| {
        let label = api(&world, "POST", "labels/", json!({"name": name, "colour": "red"})).await;
        label["id"].as_str().unwrap().to_owned()
    };
    let (refund, vip) = (label("Refund").await, label("VIP").await);
    let mut ravi = signed_in(&world, "ravi").await;
    ravi.visit("/console/inbox/").await;
    ravi.click("#conversations a.row-link").await;
    ravi.until("document.querySelector('#about .label-form')").await;
    let chat = ravi.eval("location.pathname").await.as_str().unwrap().to_owned();
    ravi.press("#about", "Change labels").await;
    ravi.click(&format!(".label-form [value='{vip}']")).await;
    let choose = "globalThis.assignees = () => document.querySelector('#about [name=assignee]'); \
        assignees().value = [...assignees().options].find((one) => one.textContent === 'ravi').value; 0";
    ravi.eval(choose).await;

    // Somebody else saves a page that was loaded before, and a message comes.
    let asha = Session::of(&world, "asha").await;
    let users = api(&world, "GET", "users/", Value::Null).await;
    let users = users["items"].as_array().unwrap();
    let id = users.iter().find(|user| user["name"] == "asha").unwrap()["id"].as_str().unwrap();
    let saved = [("do", "assign"), ("assignee", id)];
    assert_eq!(asha.post(&chat, &saved).await.status, 303);
    let saved = [("do", "labels"), ("label", &*refund)];
    assert_eq!(asha.post(&chat, &saved).await.status, 303);
    writes(&world, &json!({"message": "Hello?", "from": USER, "name": "Asha Verma"})).await;
    ravi.says("#timeline", "Hello?").await;
    ravi.says("#about .labels", "Refund").await;
    let stored = "[...assignees().options].find((one) => one.defaultSelected)?.textContent";
    ravi.until(&format!("{stored} === 'asha'")).await;
    let chosen = "assignees().selectedOptions[0].textContent";
    assert_eq!(ravi.eval(chosen).await, "ravi");
    let ticked = "[...document.querySelectorAll('.label-form :checked')].map((one) => one.value)";
    assert_eq!(ravi.eval(ticked).await, json!([refund, vip]));

    ravi.press(".label-form", "Save").await;
    ravi.says("#about .labels", "VIP").await;
    let conversation = chat.replace("/console/inbox/", "conversations/");
    let stored_labels = async || {
        let now = api(&world, "GET", &conversation, Value::Null).await;
        let labels = now["labels"].as_array().unwrap().iter().map(|label| label["name"].clone());
        (labels.collect::<Value>(), now["assignee"]["name"].clone())
    };
    assert_eq!(stored_labels().await, (json!(["Refund", "VIP"]), json!("asha")));
    assert_eq!(ravi.eval(chosen).await, "ravi", "the choice was not saved yet");
    ravi.press(".assign", "Assign").await;
    ravi.until(&format!("{stored} === 'ravi'")).await;
    // A form that showed only the first label removes only that.
    assert_eq!(asha.post(&chat, &[("do", "labels"), ("shown", &refund)]).await.status, 303);
    assert_eq!(stored_labels().await, (json!(["VIP"]), json!("ravi")));
    assert_eq!(ravi.errors, [""; 0]);

    // What was typed stays when the conversation is deleted, and the page says why it can't be sent.
    ravi.fill("#composer #text", "We send you a new one").await;
    assert_eq!(ravi.eval("document.querySelector('#gone').checkVisibility()").await, false);
    assert_eq!(asha.post(&chat, &[("do", "delete")]).await.status, 303);
    ravi.until("document.querySelector('#gone').checkVisibility()").await;
    ravi.says("#gone", "This was deleted").await;
    let typed = ravi.eval("document.querySelector('#composer #text').value").await;
    assert_eq!(typed, "We send you a new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_offers_the_canned_replies() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    writes(&world, &json!({"message": "Hello?", "from": USER, "name": "Asha Verma"})).await;
    let mut asha = signed_in(&world, "asha").await;
    asha.visit("/console/inbox/settings/").await;
    for (shortcut, text) in
        [("/hello", "Hello! How can we help you?"), ("/hours", "We are open from 9 to 5.")]
    {
        asha.fill("#replies .add [name=shortcut]", shortcut).await;
        asha.fill("#replies .add [name=text]", text).await;
        asha.press_and_go("#replies", "Create reply").await;
    }
    crate::console_look::picture(&mut asha, "replies").await;
    let mut ravi = signed_in(&world, "ravi").await;
    ravi.visit("/console/inbox/settings/").await;
    ravi.says("#replies", "We are open").await;
    ravi.visit("/console/inbox/").await;
    ravi.click("#conversations a.row-link").await;
    ravi.until("document.querySelector('offhook-replies ul')").await;
    ravi.eval("document.querySelector('#text').focus()").await;
    ravi.fill("#text", "/h").await;
    ravi.until("document.querySelectorAll('offhook-replies li').length === 2").await;
    crate::console_look::picture(&mut ravi, "slash").await;
    for key in ["ArrowDown", "Enter"] {
        crate::console_keys::press(&mut ravi, key, 0).await;
    }
    ravi.until("document.querySelector('#text').value === 'We are open from 9 to 5.'").await;
    assert_eq!(
        ravi.eval("document.querySelectorAll('.bubble.ours').length").await,
        0,
        "Enter chose and did not send"
    );
    ravi.press(".composer", "Send").await;
    ravi.says(".bubble.ours:last-of-type", "We are open from 9 to 5.").await;
    assert!(ravi.errors.is_empty() && asha.errors.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_11_s2_25_a_failed_registration_can_be_repeated() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let fields = json!({"platform_type": "NOT_APPLICABLE", "pin": "271828", "status": "CONNECTED"});
    let order = json!({"number": NEW, "phone_number_id": "106540352249999", "waba": "1029384756", "name": "New", "facts": fields});
    orders(&world, "numbers", order).await;
    let url = format!("{}/api/v1/wabas/1029384756/sync/", world.node.public);
    assert_eq!(
        http::send("POST", &url, &[("x-api-key", crate::support::node::API_KEY)], "").await.status,
        200
    );
    orders(
        &world,
        "failures",
        json!([{"what": "register", "status": 400, "code": 133_015, "details": "Wait a little"}]),
    )
    .await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/numbers/").await;
    let register = async |browser: &mut Browser| {
        browser.press(&format!("#number-{NEW}"), "Register").await;
        browser.fill("dialog [name=pin]", "271828").await;
    };
    register(&mut browser).await;
    browser.press("dialog", "Register").await;
    browser.until_toast("133015: Wait a little").await;
    browser.says(&format!("#number-{NEW} .danger-text"), "133015").await;
    // The button is disabled for a minute and shows that. It becomes enabled without a reload.
    browser.eval("globalThis.marked = 1").await;
    register(&mut browser).await;
    browser.until("document.querySelector('dialog button[value=register]').disabled").await;
    browser.until("Number(/(\\d+) s/.exec(document.querySelector('dialog [data-until]').textContent)?.[1]) < 30").await;
    browser.until("!document.querySelector('dialog button[value=register]').disabled").await;
    browser.press("dialog", "Register").await;
    browser.until(&format!("document.querySelector('#number-{NEW} .registered')")).await;
    browser.says(&format!("#number-{NEW}"), "CLOUD_API").await;
    assert_eq!(
        browser
            .eval(&format!("document.querySelectorAll('#number-{NEW} .danger-text').length"))
            .await,
        0
    );
    assert_eq!(
        browser.eval("globalThis.marked").await,
        1,
        "all of it without loading the page again"
    );
    assert_eq!(browser.errors, [""; 0]);
}

/// Starts a world with two numbers of one WABA, one new number, an agent and a subaccount.
pub async fn with_numbers() -> World {
    let world = world(|node_config, _| {
        node_config.extra = format!(
            "{}\n[[account]]\nauth_id = \"SATESTOFFHOOK0000001\"\nauth_token = \"test-token-of-subaccount\"\nparent = \"{}\"\napi_keys = []\n",
            people(),
            crate::support::node::AUTH_ID
        );
        node_config.meta = format!("app_id = \"{}\"", sim::world::APP_ID);
    })
    .await;
    for (number, id, waba, name, platform) in [
        (NUMBER, "106540352242922", "1029384756", "Shop & Co", "CLOUD_API"),
        ("918035737777", "106540352247777", "1029384756", "Second", "CLOUD_API"),
        ("5511988887777", "209876543210987", "3029384756", "Loja", "NOT_APPLICABLE"),
    ] {
        let fields = json!({"platform_type": platform, "pin": "271828", "quality_rating": "GREEN", "status": "CONNECTED"});
        orders(
            &world,
            "numbers",
            json!({"number": number, "phone_number_id": id, "waba": waba, "name": name, "facts": fields}),
        )
        .await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_calls_show_their_country() {
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    let numbers = [
        ("14165550123", "7001", "4029384756", "CA\">Canada<"),
        ("13175550123", "7002", "5029384756", "US\">United States<"),
    ];
    for (number, id, waba, _) in numbers {
        let fields = json!({"platform_type": "CLOUD_API", "status": "CONNECTED"});
        let order = json!({"number": number, "phone_number_id": id, "waba": waba, "name": "Maple", "facts": fields});
        orders(&world, "numbers", order).await;
        let token = crate::support::node::ACCESS_TOKEN;
        let fields =
            [("display_name", "Maple"), ("phone_number_id", id), ("waba", waba), ("token", token)];
        let answer = asha.post("/console/numbers/new/", &fields).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
    }
    let page = asha.get("/console/numbers/").await.text();
    for (number, _, _, country) in numbers {
        let row = page.split(&format!("<tr id=\"number-{number}\">")).nth(1).expect("a row");
        assert!(row.split("</tr>").next().unwrap().contains(country), "{row}");
    }
    let uuid = call(&world).await;
    world.node.record(&uuid).await;
    let page = asha.get("/console/calls/").await.text();
    assert!(page.contains("<span data-region=\"IN\">India</span></span></small>"), "{page}");
}

/// Messages must not silently stop to arrive at a number's own URL.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_whose_messages_go_nowhere_says_so_and_is_routed_with_a_button() {
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    let number = format!("phone-numbers/{NUMBER}/");
    let own = json!({"webhookUrl": world.app.url("/own")});
    let shown = api(&world, "PATCH", &number, own).await;
    assert_eq!(shown["defaultRouting"], "webhook", "{shown}");
    // The dialog for the agent is saved unchanged.
    let dialog = asha.get(&format!("/console/numbers/{NUMBER}/agent/")).await.text();
    assert!(dialog.contains("name=\"was\" value=\"none\""), "{dialog}");
    let act = format!("/console/numbers/{NUMBER}/do");
    let saved = asha.post(&act, &[("do", "agent"), ("agent", ""), ("was", "none")]).await;
    assert_eq!(saved.status, 303);
    let routing = async || api(&world, "GET", &number, Value::Null).await["defaultRouting"].clone();
    assert_eq!(routing().await, "webhook");

    let page = format!("/console/numbers/{NUMBER}/");
    let note = "the number has no agent, and its webhook URL is not in use";
    assert!(!asha.get(&page).await.text().contains(note));
    let left = api(&world, "POST", &format!("{number}disconnect-agent/"), json!({})).await;
    assert_eq!(left["defaultRouting"], "none");
    assert!(asha.get(&page).await.text().contains(note));
    assert_eq!(asha.post(&page, &[("do", "route")]).await.status, 303);
    assert_eq!(routing().await, "webhook");
    assert!(!asha.get(&page).await.text().contains(note));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_form_shows_fields_by_type_and_errors_in_its_own_words() {
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    for (fields, text) in [
        (&[("kind", "http"), ("channel.voice", "on")][..], "Enter the Endpoint"),
        (&[("kind", "llm"), ("channel.voice", "on")], "Enter the API base URL"),
        (
            &[("kind", "http"), ("channel.voice", "on"), ("endpoint", "ftp://x/")],
            "This URL can&#39;t be used: ",
        ),
        (&[("kind", "llm"), ("endpoint", "https://example.com/v1")], "Select at least one channel"),
    ] {
        let all = [("name", "Asha"), ("language", "en-US")];
        let fields: Vec<_> = all.iter().chain(fields).copied().collect();
        let refused = asha.post("/console/agents/", &fields).await;
        let page = refused.text();
        assert_eq!(refused.status, 400, "{page}");
        assert!(page.matches(text).count() >= 2, "at the top and at the field: {text}: {page}");
        assert!(!page.contains("of kind http") && !page.contains("channels must name"), "{page}");
    }
    if !has_chromium() {
        return;
    }
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/agents/new/").await;
    let shown = "[...document.querySelectorAll('.agent-form [name]')].filter((field) => field.type !== 'hidden' && \
                 field.checkVisibility()).map((field) => field.name).join(' ')";
    let common = "channel.whatsapp channel.voice greeting language voice outboundNumber enabled do";
    assert_eq!(
        browser.eval(shown).await,
        format!("name kind kind endpoint apiKey signingSecret {common}")
    );
    browser.click("[name=kind][value=llm]").await;
    assert_eq!(
        browser.eval(shown).await,
        format!("name kind kind endpoint model apiKey instructions {common}")
    );
    browser.says(".agent-form", "System prompt").await;
    browser.fill("[name=name]", "Asha").await;
    browser.fill("[name=endpoint]", &world.app.url("/v1")).await;
    browser.press_and_go(".agent-form", "Save").await;
    browser.says("#agents", "Language model").await;
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_05_s2_13_numbers_are_added_registered_and_assigned_to_agents() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let asha = Session::of(&world, "asha").await;
    for name in ["Night desk", "Day desk"] {
        let endpoint = world.app.url("/agent");
        let agent = [
            ("name", name),
            ("kind", "http"),
            ("endpoint", endpoint.as_str()),
            ("language", "en-US"),
        ];
        let agent: Vec<_> =
            agent.into_iter().chain([("channel.whatsapp", "on"), ("enabled", "on")]).collect();
        assert_eq!(asha.post("/console/agents/", &agent).await.status, 303);
    }
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/numbers/").await;
    // Refresh the number from Meta.
    browser.click(&format!("#number-{NUMBER} button[value=sync]")).await;
    browser.until_toast("Synced with Meta").await;
    browser.says(&format!("#number-{NUMBER}"), "Shop & Co").await;
    browser.says(&format!("#number-{NUMBER}"), "CLOUD_API").await;

    // Connect a number by its credentials. Errors from Meta are shown in the dialog.
    browser.press(".head-do", "Connect New Number").await;
    browser.fill("dialog [name=display_name]", "Loja — São Paulo").await;
    browser.fill("dialog [name=phone_number_id]", "209876543210987").await;
    browser.fill("dialog [name=waba]", "3029384756").await;
    browser.fill("dialog [name=token]", "no-such-token").await;
    browser.press("dialog", "Connect Number").await;
    browser.until("document.querySelector('dialog.panel .alert')").await;
    assert_eq!(
        browser.eval("document.querySelector('dialog [name=display_name]').value").await,
        "Loja — São Paulo"
    );
    assert_eq!(
        browser.eval("document.querySelector('dialog [name=token]').value").await,
        "",
        "never shown again"
    );
    browser.fill("dialog [name=token]", crate::support::node::ACCESS_TOKEN).await;
    browser.press("dialog", "Connect Number").await;
    browser.until_toast("Number connected").await;
    browser.says("#number-5511988887777", "Loja — São Paulo").await;
    browser.says("#number-5511988887777", "Register via Actions").await;

    // A wrong PIN is reported and delays the next attempt. The right one registers.
    browser.press("#number-5511988887777", "Register").await;
    browser.fill("dialog [name=pin]", "000000").await;
    browser.press("dialog", "Register").await;
    browser.until_toast("Registration started").await;
    browser.until_toast("133005").await;
    browser.press("#number-5511988887777", "Register").await;
    browser
        .until("/in \\d+ s/.test(document.querySelector('dialog [data-until]')?.textContent)")
        .await;
    browser.click("dialog [data-close]").await;
    browser.until("!document.querySelector('dialog.panel')").await;

    // Embedded sign-up, with a page of the simulated Meta in place of Meta's window.
    browser.eval("location.href = '/console/numbers/sign-up/'").await;
    browser.until("document.querySelector('form.sign-up [name=sms]')").await;
    browser.fill("[name=number]", "918035738888").await;
    browser.fill("[name=name]", "Corner Shop").await;
    browser.fill("[name=sms]", "000000").await;
    browser.press("form.sign-up", "Add number").await;
    browser.until("document.querySelector('[role=alert]')").await;
    browser.fill("[name=sms]", "271828").await;
    browser.press("form.sign-up", "Add number").await;
    browser.until("location.search === '?done=sign-up'").await;
    browser.says("#number-918035738888", "Corner Shop").await;
    browser.press("#number-918035738888", "Register").await;
    browser.fill("dialog [name=pin]", "314159").await;
    browser.press("dialog", "Register").await;
    browser.says("#number-918035738888", "CLOUD_API").await;
    browser.until("document.querySelector('#number-918035738888 .registered')").await;

    // A dialog with a list of agents that can be searched and cleared.
    let cell = format!("#number-{NUMBER} a[href$='/agent/']");
    browser.says(&cell, "Assign…").await;
    browser.click(&cell).await;
    browser.until("document.querySelector('dialog offhook-choose [type=search]') === document.activeElement").await;
    browser.fill("dialog [type=search]", "night").await;
    let shown = "[...document.querySelectorAll('dialog .choice')].filter((c) => !c.hidden).map((c) => c.textContent.trim())";
    assert_eq!(browser.eval(shown).await, json!(["Night desk"]));
    browser.eval("document.querySelector('dialog .choice:not([hidden]) input').click()").await;
    browser.press("dialog", "Save").await;
    browser.until_toast("Agent saved").await;
    browser.says(&cell, "Night desk").await;
    browser.click(&cell).await;
    browser.press("dialog", "Clear").await;
    browser.press("dialog", "Save").await;
    browser.says(&cell, "Assign…").await;

    // The agent's outbound number; only numbers at the Cloud API are offered.
    browser.visit("/console/agents/").await;
    let offered = browser
        .eval("[...document.querySelector('[name=outboundNumber]').options].map((o) => o.value)")
        .await;
    assert!(
        offered.to_string().contains(NUMBER) && !offered.to_string().contains("5511988887777"),
        "{offered}"
    );
    browser.fill("[name=outboundNumber]", NUMBER).await;
    browser.press_and_go("#agents form", "Save").await;
    browser
        .until(&format!(
            "document.readyState === 'complete' && document.querySelector('[name=outboundNumber]').value === '{NUMBER}'"
        ))
        .await;

    // A person with the role `agent` can view but not change.
    let ravi = Session::of(&world, "ravi").await;
    let page = ravi.get("/console/numbers/").await.text();
    assert!(
        !page.contains("/register/")
            && !page.contains("/numbers/new/")
            && !page.contains("value=\"sync\"")
    );
    for path in ["new/", "sign-up/", &format!("{NUMBER}/agent/"), &format!("{NUMBER}/register/")] {
        assert_eq!(ravi.get(&format!("/console/numbers/{path}")).await.status, 403, "{path}");
    }
    let eve = Session::of(&world, "eve").await;
    assert_eq!(eve.get(&format!("/console/numbers/{NUMBER}/agent/")).await.status, 404);
    let stale =
        asha.post("/console/numbers/sign-up/", &[("code", "code-x"), ("state", "mine")]).await;
    assert_eq!(stale.status, 400, "a sign-up that this browser did not begin");
    browser.errors.retain(|error| !error.contains("422") && !error.contains("400"));
    assert_eq!(browser.errors, [""; 0]);
}

/// The simulated phone has a port of its own, so a link to it is same-site and not same-origin.
#[tokio::test(flavor = "multi_thread")]
async fn the_browser_phone_opens_from_the_console() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/").await;
    let link = "document.querySelector(\"#steps a[href*='/_sim/phone']\")";
    browser.eval(&format!("{link}.removeAttribute('target')")).await;
    browser.eval(&format!("{link}.click()")).await;
    browser.until("location.pathname === '/_sim/phone' && document.title !== ''").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_01_to_s0_30_a_number_is_configured_in_the_side_panel() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let asha = Session::of(&world, "asha").await;
    let mut browser = signed_in(&world, "asha").await;
    let open = "document.querySelector('dialog.side[open]')";
    browser.visit("/console/numbers/").await;
    browser.eval("globalThis.marked = 1").await;
    browser.click(&format!("#number-{NUMBER} a.row-link")).await;
    browser.until(open).await;
    browser.says("dialog.side", "India").await;
    // The link is at the bottom left.
    let left = "document.querySelector('dialog.side .panel-foot details').getBoundingClientRect().left < \
                document.querySelector('dialog.side button.primary').getBoundingClientRect().left";
    assert_eq!(browser.eval(left).await, true);
    // Without changes the panel closes immediately.
    browser.click("dialog.side [data-close]").await;
    browser.until("document.querySelectorAll('dialog.side').length === 0").await;

    browser.click(&format!("#number-{NUMBER} a.row-link")).await;
    browser.until(open).await;
    // The fields depend on the type.
    let seen = |field: &str| {
        format!("document.querySelector('dialog [name={field}]')?.checkVisibility() === true")
    };
    browser.until(&format!("{} && !({})", seen("webhookUrl"), seen("agent"))).await;
    browser.eval("document.querySelector('dialog [value=agent]').click()").await;
    browser.until(&format!("!({}) && {}", seen("webhookUrl"), seen("agent"))).await;
    // Required only while the toggle is on, and not if an agent takes the calls.
    let needed = "document.querySelector('dialog [name=answerUrl]').getAttribute('aria-required')";
    assert_eq!(browser.eval(needed).await, "false");
    browser.eval("document.querySelector('dialog [value=webhook]').click()").await;
    assert_eq!(browser.eval(needed).await, "true");
    browser.eval("document.querySelector('dialog [name=callingEnabled]').click()").await;
    assert_eq!(browser.eval(needed).await, "false");
    browser.eval("document.querySelector('dialog [name=callingEnabled]').click()").await;
    // Validated while typing, without saving.
    let wrong = "document.querySelector('dialog #wrong-answer').textContent.length > 5";
    for bad in ["htps://shop.example", "https://", "shop", "https://a b.example/"] {
        browser.fill("dialog [name=answerUrl]", bad).await;
        assert_eq!(browser.eval(wrong).await, true, "{bad}");
    }
    browser.fill("dialog [name=answerUrl]", "").await;
    assert_eq!(browser.eval(wrong).await, true, "it is needed");
    browser.press("dialog.side", "Save changes").await;
    browser.until(open).await;
    browser.fill("dialog [name=answerUrl]", "https://shop.example/answer").await;
    assert_eq!(
        browser.eval("document.querySelector('dialog #wrong-answer').textContent").await,
        ""
    );
    // The number has no URL for messages, and needs none for its calls.
    browser.fill("dialog [name=alias]", "Support — APAC").await;
    // Closing the panel keeps what was typed.
    browser
        .eval("document.querySelector('dialog.side').dispatchEvent(new Event('cancel', { cancelable: true }))")
        .await;
    browser.until("document.querySelector('#ask[open]')").await;
    browser.press("#ask", "Keep editing").await;
    browser.until(&format!("!document.querySelector('#ask[open]') && {open}")).await;
    browser.press("dialog.side", "Save changes").await;
    browser.until_toast("Saved").await;
    browser.says(&format!("#number-{NUMBER}"), "Support — APAC").await;
    assert_eq!(browser.eval("globalThis.marked").await, 1, "without loading the page again");
    let shown = asha.get(&format!("/console/numbers/{NUMBER}/")).await.text();
    assert!(shown.contains("https://shop.example/answer"), "{shown}");

    // The standalone page does the same and asks before leaving.
    browser.visit(&format!("/console/numbers/{NUMBER}/")).await;
    assert_eq!(browser.eval("document.querySelectorAll('dialog.side').length").await, 0);
    let refused = asha
        .post(
            &format!("/console/numbers/{NUMBER}/"),
            &[
                ("do", "save"),
                ("answerUrl", "ftp://x"),
                ("was.answerUrl", "https://shop.example/answer"),
            ],
        )
        .await;
    assert!(refused.status == 400 && refused.text().contains("aria-invalid"), "{}", refused.status);

    // Warnings about what will break are shown before saving.
    browser.visit("/console/numbers/").await;
    browser.click(&format!("#number-{NUMBER} a.row-link")).await;
    browser.press("dialog.side", "Disconnect number").await;
    browser.says("dialog.side details[open]", "Open conversations:").await;
    browser.says("dialog.side details[open]", "Live calls:").await;
    browser.press("dialog.side", "Yes, disconnect").await;
    browser.says(&format!("#number-{NUMBER}"), "Disconnected").await;
    browser.click(&format!("#number-{NUMBER} a.row-link")).await;
    browser.press("dialog.side", "Reconnect").await;
    browser
        .until(&format!(
            "!document.querySelector('#number-{NUMBER}')?.textContent.includes('Disconnected')"
        ))
        .await;

    // A person without permission to change it can view it.
    let ravi = Session::of(&world, "ravi").await;
    let page = ravi.get(&format!("/console/numbers/{NUMBER}/")).await.text();
    assert!(
        page.contains("name=\"alias\"")
            && page.contains(" disabled>")
            && !page.contains("value=\"save\"")
    );
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_somebody_else_is_not_overwritten_unnoticed() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let page = format!("/console/numbers/{NUMBER}/");
    let mut first = signed_in(&world, "asha").await;
    let mut second = signed_in(&world, "asha").await;
    for (browser, alias) in [(&mut second, "Sales"), (&mut first, "Support")] {
        browser.visit(&page).await;
        browser.fill("main [name=alias]", alias).await;
    }
    let alias = "document.querySelector('main [name=alias]').value";
    first.press_and_go("main", "Save changes").await;
    second.press_and_go("main", "Save changes").await;
    second.says("main", "Somebody else has changed this number").await;
    assert_eq!(second.eval(alias).await, "Sales");
    first.visit(&page).await;
    assert_eq!(first.eval(alias).await, "Support");
    second.press_and_go("main", "Save changes").await;
    first.visit(&page).await;
    assert_eq!(first.eval(alias).await, "Sales");
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_21_s0_22_the_mapping_is_changed_for_all_numbers_of_a_waba() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let asha = Session::of(&world, "asha").await;
    let url = format!("{}/api/v1/wabas/1029384756/sync/", world.node.public);
    let synced =
        http::send("POST", &url, &[("x-api-key", crate::support::node::API_KEY)], "").await;
    assert_eq!(synced.status, 200, "{}", synced.text());
    let order = json!({"message": "Open?", "from": USER, "phone_number_id": "106540352242922"});
    writes(&world, &order).await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/inbox/").await;
    browser.click("#conversations a.row-link").await;
    browser.until("document.querySelector('#composer textarea#text')").await;
    browser.visit("/console/numbers/").await;
    browser.click(&format!("#number-{NUMBER} a.row-link")).await;
    browser.says("dialog.side .note.warm", "+918035737777").await;
    browser.says("dialog.side", "can no longer be answered there").await;
    browser.fill("dialog [name=account]", "SATESTOFFHOOK0000001").await;
    // The number has no URL for messages; only changed fields are validated.
    browser.press("dialog.side", "Save changes").await;
    browser.until_toast("Saved").await;
    for number in [NUMBER, "918035737777"] {
        let page = asha.get(&format!("/console/numbers/{number}/")).await.text();
        assert!(page.contains("value=\"SATESTOFFHOOK0000001\" selected"), "{number}");
    }
    // The conversation says why it can't be answered.
    browser.visit("/console/inbox/").await;
    browser.click("#conversations a.row-link").await;
    browser.says("#composer", "belongs to another account now").await;
    let composer = "document.querySelector('#composer textarea#text')";
    assert_eq!(browser.eval(&format!("{composer} === null")).await, true);
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_13_keys_and_webhooks_are_created_shown_once_tested_and_removed() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    world.app.route("/hook", |_| (500, String::new()));
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/people/").await;
    browser.fill("#keys [name=name]", "ci").await;
    browser.press("#keys", "Create API key").await;
    browser.until("document.querySelector('[data-copy]')?.textContent.length > 20").await;
    let secret = browser.eval("document.querySelector('[data-copy]').textContent").await;
    browser.visit("/console/people/").await;
    let page = browser.eval("document.body.innerHTML").await;
    assert!(!page.as_str().unwrap().contains(secret.as_str().unwrap()), "once");
    browser.press("#keys table", "Delete").await;
    browser
        .until(
            "document.querySelector('#ask-text').textContent.startsWith('ci\\nDelete permanently')",
        )
        .await;
    browser.press("#ask", "Confirm").await;
    browser.says("#keys", "No API keys yet").await;

    browser.visit("/console/webhooks/").await;
    browser.fill(".add [name=name]", "crm").await;
    browser.fill(".add [name=url]", &world.app.url("/hook")).await;
    browser.press(".add", "Create webhook").await;
    browser.until("document.querySelector('[data-copy]')?.textContent.length > 20").await;
    let first = browser.eval("document.querySelector('[data-copy]').textContent").await;
    browser.visit("/console/webhooks/").await;
    browser.click("#webhooks a.row-link").await;
    browser.press_and_go(".head-do", "Send test event").await;
    browser.says("#deliveries", "Next attempt").await;
    world.app.route("/hook", |_| (200, String::new()));
    browser.press_and_go("#deliveries", "Redeliver").await;
    browser.says("#deliveries", "Delivered").await;
    browser.press("main form.stack", "Rotate secret").await;
    browser.until("document.querySelector('[data-copy]')?.textContent.length > 20").await;
    let second = browser.eval("document.querySelector('[data-copy]').textContent").await;
    assert_ne!(first, second);
    browser.press("main form.stack", "End rotation").await;
    browser.press_and_go("#ask", "Confirm").await;
    browser.until("!document.querySelector('[data-copy]') && !document.querySelector('[value=end-rotation]')").await;
    browser.press("main form.stack", "Delete").await;
    browser.press("#ask", "Confirm").await;
    browser.says("#webhooks", "No webhooks yet").await;
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_shared_by_link_and_an_answer_url_is_tried_out() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    world.app.xml("/answer", "<Response><Speak>Good morning, caller.</Speak></Response>");
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/playground/").await;
    let document = "<Response>\n  <Speak>Grüße, नमस्ते &amp; hello.</Speak>\n</Response>";
    browser.fill("#source", document).await;
    browser.click("offhook-share:not([hidden]) button").await;
    browser.until_toast("Link copied").await;
    let hash = browser.eval("location.hash").await.as_str().unwrap().to_owned();
    assert!(hash.starts_with("#xml=") && hash.len() < 200, "{hash}");
    browser.visit("/console/").await;
    browser.eval(&format!("location.href = '/console/playground/{hash}'")).await;
    browser
        .until(&format!("document.querySelector('#source')?.value === {}", json!(document)))
        .await;
    assert!(!world.node.log().contains(&hash[5..]), "no server sees it");
    for broken in ["#xml=%%%", "#xml=AAAA"] {
        browser.visit("/console/").await;
        browser.eval(&format!("location.href = '/console/playground/{broken}'")).await;
        browser.until_toast("does not contain a valid document").await;
    }

    browser.visit("/console/playground/debugger/").await;
    browser.fill("[name=url]", &world.app.url("/answer")).await;
    browser.fill("[name=from]", "4915112345678").await;
    browser.press("main form", "Send and run").await;
    browser.says(".walk", "Good morning, caller").await;
    let asked = world.app.wait("/answer").await;
    assert_eq!(asked.param("From"), "4915112345678");
    let ravi = Session::of(&world, "ravi").await;
    let refused =
        ravi.post("/console/playground/debugger/", &[("url", &world.app.url("/answer"))]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(browser.errors, [""; 0]);
}
