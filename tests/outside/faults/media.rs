//! Unusable offers, networks that lose, duplicate and reorder packets, and media that fails or
//! stops (`docs/reference/reliability.md#r12`).

use std::time::Duration;

use sim::{CallEventKind, CallScript, HangupRule, HangupSource, PhoneKind, caller};

use super::{World, rules, user, with_media};

const MENU: &str = "<Response><GetInput action=\"ACTION\" numDigits=\"DIGITS\" digitEndTimeout=\"10\" \
    executionTimeout=\"60\"><Speak>Press the keys.</Speak></GetInput></Response>";

/// A user who presses keys after the first audio and stays until the business hangs up.
pub(super) fn presses(nr: u32, keys: &str) -> CallScript {
    CallScript { keys: caller::parse_keys(keys).expect("keys"), ..with_media(nr) }
}

impl World {
    /// `/answer` collects `digits` digits, and `/menu` receives them and speaks.
    pub(super) fn menu(&self, digits: usize) {
        let menu =
            MENU.replace("ACTION", &self.app.url("/menu")).replace("DIGITS", &digits.to_string());
        self.app
            .xml("/answer", menu)
            .xml("/menu", "<Response><Speak>Thank you.</Speak></Response>");
    }

    async fn digits(&self, nr: u32) -> String {
        let from = user(nr);
        self.app
            .wait_where("/menu", |seen| seen.param("From") == from)
            .await
            .param("Digits")
            .to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h05_unusable_offers_are_rejected_and_unusual_ones_accepted() {
    let bad = [
        "empty",
        "cut",
        "video_only",
        "no_opus",
        "sha1",
        "sdes",
        "no_candidate",
        "bad_ufrag",
        "no_rtcp_mux",
        "huge",
        // Unusable for a node with IPv4 only.
        "ipv6_only",
    ];
    let odd = ["opus_96", "no_digits"];
    let ways: Vec<String> =
        bad.iter().chain(&odd).map(|how| format!("do = \"offer\"\nhow = \"{how}\"")).collect();
    let user_rules: Vec<(u32, &str)> = (1..).zip(ways.iter().map(String::as_str)).collect();
    let world = World::start(&rules(&user_rules), |w, _| w.accept_wait_ms = 3_000).await;
    let calls = world.calls((1..=11).map(with_media)).await;
    for (how, call) in bad.iter().zip(&calls) {
        assert_eq!(world.graph_requests(&call.wacid), ["reject 200"], "{how}");
        assert_eq!(call.count(&CallEventKind::Hangup { by: HangupSource::Rejected }), 1, "{how}");
    }
    assert_eq!(world.admission("bad_offer").await, 11.0);
    assert!(world.app.requests().is_empty(), "no request about a call that was not admitted");
    for call in world.calls([with_media(12), with_media(13)]).await {
        assert!(call.end().ok && call.end().heard_ms > 100, "{:#?}", call.events);
    }
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h06_r12_digits_count_once_under_packet_loss() {
    let weather = "do = \"media\"\nloss = 30\nreorder = 20\nduplicate = 5\njitter_ms = 200\nweather_after_ms = 300";
    let user_rules: Vec<(u32, &str)> = (1..=4).map(|nr| (nr, weather)).collect();
    let world = World::start(&rules(&user_rules), |w, _| w.accept_wait_ms = 3_000).await;
    world.menu(6);
    let typed = ["112233", "909090", "***000", "777777"];
    let keys = typed.map(|keys| keys.chars().map(|key| format!("{key}w")).collect::<String>());
    let calls = world.calls((1..).zip(&keys).map(|(nr, keys)| presses(nr, keys))).await;
    for (nr, (call, typed)) in (1..).zip(calls.iter().zip(typed)) {
        assert_eq!(world.digits(nr).await, typed);
        assert_eq!(
            world.hangup(&call.wacid).await.param("HangupCauseCode"),
            "4010",
            "the call stayed up"
        );
        assert!(call.end().heard_ms > 300, "both prompts, with holes: {:#?}", call.end());
    }
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h06_r12_media_faults_do_not_end_a_call() {
    let ways = ["replay", "bad_rtcp", "new_ssrc", "other_pt", "clock_jump", "dtx"]
        .map(|how| format!("do = \"media\"\nhow = \"{how}\"\nafter_ms = 800"));
    let mut user_rules: Vec<(u32, &str)> = (1..).zip(ways.iter().map(String::as_str)).collect();
    user_rules.push((7, "do = \"media\"\ncorrupt = 20"));
    user_rules.push((8, "do = \"media\"\ngap_ms = 5000\nafter_ms = 800"));
    // In the middle of the first digit.
    user_rules.push((9, "do = \"media\"\nhow = \"new_ssrc\"\nafter_ms = 2400"));
    let world = World::start(&rules(&user_rules), |w, _| {
        w.accept_wait_ms = 3_000;
        w.media_ports = 16;
    })
    .await;
    world.menu(3);
    let keys = |nr| if nr == 8 { "WWWWWWW4w4w2" } else { "WW4w4w2" };
    let calls = world.calls((1..=9).map(|nr| presses(nr, keys(nr)))).await;
    for (nr, call) in (1..).zip(&calls) {
        assert_eq!(world.digits(nr).await, "442", "user {nr}");
        assert!(call.end().ok, "user {nr}: {:#?}", call.events);
    }
    world.assert_clean().await;
}

/// Runs all slow cases concurrently, since each takes half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn h03_h06_r12_media_timeouts_end_calls_and_a_muted_user_stays() {
    let user_rules = [
        (1, "do = \"media\"\nhow = \"vanish\"\nafter_ms = 1000"),
        (2, "do = \"lose\"\non = \"terminate\""),
        (3, "do = \"media\"\nhow = \"no_rtp\""),
        (4, "do = \"media\"\nhow = \"no_dtls\""),
        (5, "do = \"offer\"\nhow = \"wrong_fingerprint\""),
        (6, "do = \"media\"\ngap_ms = 25000\nafter_ms = 1000"),
    ];
    let world = World::start(&rules(&user_rules), |w, _| w.accept_wait_ms = 1_000).await;
    world.app.xml("/answer", "<Response><Speak>Hello</Speak><Wait length=\"35\"/></Response>");
    let hangs_up = |nr, ms| CallScript {
        hangup: HangupRule::AfterAnswer(Duration::from_millis(ms)),
        ..with_media(nr)
    };
    let scripts = [
        with_media(1),
        hangs_up(2, 1_500),
        with_media(3),
        with_media(4),
        with_media(5),
        with_media(6),
    ];
    let calls = world.calls(scripts).await;
    let codes = ["6020", "6020", "4010", "5000", "5000", "4010"];
    let lasts = [31..35, 31..38, 35..39, 16..20, 0..3, 35..39];
    for (nr, ((call, code), lasts)) in (1..).zip(calls.iter().zip(codes).zip(lasts)) {
        let hangup = world.hangup(&call.wacid).await;
        assert_eq!(
            hangup.param("HangupCauseCode"),
            code,
            "user {nr}: {:?}",
            world.graph_requests(&call.wacid)
        );
        let seconds = hangup.param("Duration").parse::<u64>().unwrap_or_default();
        assert!(lasts.contains(&seconds), "user {nr}: {seconds} s");
    }
    assert!(calls[2].end().ok && calls[5].end().ok, "muted, or away for a while: they stay");
    world.assert_clean().await;
}

/// Fifty concurrent calls through one relay address, each with its own media.
#[tokio::test(flavor = "multi_thread")]
async fn h13_two_calls_and_fifty_share_one_relay_port() {
    let world = World::start("", |w, _| {
        w.accept_wait_ms = 3_000;
        w.media_ports = 64;
    })
    .await;
    world.app.xml("/answer", "<Response><Speak>Hello there.</Speak></Response>");
    let counting = |nr| CallScript { phone: PhoneKind::Counting, ..with_media(nr) };
    for many in [2, 50] {
        let calls = world.calls((1..=many).map(counting)).await;
        let audible =
            calls.iter().filter(|call| call.end().ok && call.end().heard_ms > 100).count();
        assert_eq!(audible, usize::try_from(many).unwrap(), "each heard its own prompt");
    }
    world.assert_clean().await;
}
