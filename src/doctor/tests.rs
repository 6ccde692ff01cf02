//! Tests of the single evaluations. `tests/outside/doctor.rs` runs all of them against the
//! simulated Meta.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::State;
use super::local::{
    PortUse, advertised, found, full_disk, journal, listeners, media_port, missing_store, port_use,
    readiness, secret_key, unusable_data_dir, unusable_files,
};
use super::meta::{clock, evaluate_token, inactive_subscription};
use super::numbers::{calling, registered, status_findings, url};
use engine::admission::book::{Number, NumberSet, testing};
use engine::config::Listen;
use engine::meta::numbers::{CallingSettings, PhoneNumber, Subscription, TokenInfo};
use engine::numbers::{Checked, UrlCheck};
use model::{Disk, Method, Secret, Timestamp};
use store::{Database, SealedValues};
use xml::ast::DocUrl;

fn number(calling_enabled: bool) -> Number {
    testing::number(NumberSet { calling_enabled, ..NumberSet::default() })
}

#[test]
fn clocks_and_tokens() {
    let at = Timestamp::from_secs;
    for (theirs, state) in [
        (1_000, State::Ok),
        (1_005, State::Ok),
        (994, State::Warning),
        (1_045, State::Warning),
        (900, State::Failed),
    ] {
        assert_eq!(clock(at(1_000), at(theirs)).state, state, "{theirs}");
    }
    let scopes = || {
        ["whatsapp_business_management", "whatsapp_business_messaging", "email"]
            .map(str::to_owned)
            .to_vec()
    };
    let good = TokenInfo {
        valid: true,
        expires: None,
        scopes: scopes(),
        app: Some("7".to_owned()),
        wabas: Vec::new(),
    };
    let ends = |secs| TokenInfo { expires: Some(at(secs)), ..good.clone() };
    for (info, state) in [
        (good.clone(), State::Ok),
        (TokenInfo { valid: false, ..good.clone() }, State::Failed),
        (TokenInfo { scopes: scopes()[..1].to_vec(), ..good.clone() }, State::Failed),
        (TokenInfo { app: None, ..good.clone() }, State::Ok),
        (TokenInfo { app: Some("8".to_owned()), ..good.clone() }, State::Warning),
        (ends(999), State::Failed),
        (ends(1_000 + 86_400), State::Warning),
        (ends(1_000 + 30 * 86_400), State::Ok),
    ] {
        let line = evaluate_token(&info, "7", at(1_000));
        assert_eq!((line.state, line.fix.is_some()), (state, state != State::Ok), "{info:?}");
    }
}

#[test]
fn a_disk_without_space_for_recordings_is_reported() {
    let disk = |free| Disk { size: 100 << 30, free };
    assert_eq!(full_disk(disk(256 << 20), None), None);
    let finding = full_disk(disk(255 << 20), None).unwrap();
    assert_eq!(finding.state, State::Warning);
    assert!(finding.what.starts_with("255 MiB are free"), "{finding:?}");
    assert_eq!(full_disk(disk(0), Some(0)), None);
}

#[test]
fn writes_in_the_journal_are_reported() {
    assert_eq!(journal(Ok(0)), None);
    let finding = journal(Ok(3)).unwrap();
    assert!(finding.state == State::Warning && finding.what.starts_with("3 writes"), "{finding:?}");
    assert!(journal(Err(std::io::ErrorKind::PermissionDenied.into())).is_some());
}

#[test]
fn a_key_that_opens_nothing_is_wrong() {
    let kind = |what, readable, unreadable| SealedValues { what, readable, unreadable };
    assert_eq!(secret_key(&[]), None);
    assert_eq!(secret_key(&[kind("a", 2, 0)]), None);
    let wrong = secret_key(&[kind("a", 0, 2), kind("b", 0, 1)]).unwrap();
    assert_eq!((wrong.check, wrong.state), ("secret_key", State::Failed));
    assert!(wrong.what.ends_with("2 of 2 a, 1 of 1 b"), "{wrong:?}");
    let older = secret_key(&[kind("a", 1, 1), kind("b", 4, 0)]).unwrap();
    assert_eq!(older.state, State::Warning);
    assert!(older.what.ends_with("1 of 2 a"), "{older:?}");
}

#[test]
fn a_data_dir_that_is_a_file_is_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for usable in [folder.path().to_owned(), folder.path().join("later/data")] {
        assert_eq!(unusable_data_dir(&usable), None, "{}", usable.display());
    }
    for unusable in [file.clone(), file.join("data")] {
        let finding = unusable_data_dir(&unusable).unwrap();
        assert_eq!(finding.state, State::Failed, "{finding:?}");
        assert!(finding.fix.as_ref().unwrap().contains("store.data_dir"), "{finding:?}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_store_that_is_missing_under_a_running_node_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, empty) = (folder.path().join("offhook.db"), folder.path().join("empty.db"));
    std::fs::write(&empty, "").unwrap();
    let server = || Database::Postgres(Secret::new("postgres://db.example.com/offhook"));
    for (at, runs, state, words) in [
        (Database::File(missing.clone()), Some(false), State::Ok, "does not exist yet"),
        (Database::File(missing.clone()), None, State::Ok, "does not exist yet"),
        (Database::File(missing), Some(true), State::Failed, "was moved or deleted"),
        (Database::File(empty), Some(false), State::Ok, "is empty"),
        (server(), Some(false), State::Ok, "creates its tables at its first start"),
        (server(), Some(true), State::Failed, "has no tables"),
    ] {
        let finding = missing_store(&at, runs);
        assert_eq!(finding.state, state, "{finding:?}");
        assert!(finding.what.contains(words), "{finding:?}");
    }
}

/// The node sets `SO_REUSEADDR`, so connections that it had accepted are not in its way.
#[test]
fn a_port_of_an_outgoing_connection_is_not_that_of_another_process() {
    use std::net::{TcpListener, TcpStream};
    let line = |port: u16, state: &str| {
        format!("   0: 0100007F:{port:04X} 0100007F:1F90 {state} 00000000:00000000 00:00000000\n")
    };
    let of = |table: String| port_use([table.as_str()].into_iter(), 40_001);
    assert_eq!(of(line(40_001, "06")), PortUse::TimeWait);
    assert_eq!(of(line(40_001, "06") + &line(40_001, "01")), PortUse::Connection);
    assert_eq!(of(line(40_001, "01") + &line(40_001, "0A")), PortUse::Listener);
    assert_eq!(of(line(40_002, "06")), PortUse::Listener);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test connects to its own listener")]
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let at = client.local_addr().unwrap();
    let (server, _) = listener.accept().unwrap();
    let listen = Listen { public: at, admin: "127.0.0.1:0".parse().unwrap(), ..Listen::default() };
    let states = || {
        let lines = listeners(&listen, Some(false));
        lines.into_iter().map(|line| (line.state, line.what)).collect::<Vec<_>>()
    };
    assert!(matches!(&states()[..], [(State::Failed, what)] if what.contains("outgoing")));
    // The side that closes first waits.
    drop(client);
    let mut end = [0];
    let _ = std::io::Read::read(&mut &server, &mut end);
    drop(server);
    assert!(matches!(&states()[..], [(State::Warning, what)] if what.contains("within a minute")));
}

#[test]
fn files_of_another_user_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["offhook.db", "offhook.lock"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    std::fs::create_dir(folder.path().join("recordings")).unwrap();
    assert_eq!(unusable_files(folder.path()), None);
    assert_eq!(unusable_files(&folder.path().join("missing")), None);
    for name in ["offhook.lock", "recordings"] {
        let path = folder.path().join(name);
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
            // Only root may give files away.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
        }
    }
    let finding = unusable_files(folder.path()).unwrap();
    assert_eq!(finding.state, State::Failed);
    assert!(finding.what.ends_with(": offhook.lock, recordings"), "{finding:?}");
    let _ = std::fs::set_permissions(
        folder.path().join("recordings"),
        std::fs::Permissions::from_mode(0o700),
    );
}

#[test]
fn addresses_that_meta_cannot_reach() {
    let ip = |text: &str| text.parse().unwrap();
    for (ips, bound, simulated, state) in [
        (&[][..], "0.0.0.0", false, State::Warning),
        (&[], "10.0.0.5", false, State::Failed),
        (&[], "8.8.8.8", false, State::Ok),
        (&["192.168.1.2"], "0.0.0.0", false, State::Failed),
        (&["192.168.1.2", "8.8.8.8"], "0.0.0.0", false, State::Ok),
        (&["127.0.0.1"], "127.0.0.1", true, State::Ok),
    ] {
        let ips: Vec<_> = ips.iter().map(|text| ip(text)).collect();
        assert_eq!(advertised(&ips, ip(bound), simulated).state, state, "{ips:?} {bound}");
    }
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen =
        |media: &str| Listen { media: media.parse().unwrap(), media_ports: 3, ..Listen::default() };
    let taken = taken.local_addr().unwrap().to_string();
    for (runs, state) in [(Some(true), State::Ok), (None, State::Ok), (Some(false), State::Failed)]
    {
        let line = media_port(&listen(&taken), runs);
        assert_eq!((line.state, line.what.contains("in use")), (state, true), "{line:?}");
        assert_eq!(media_port(&listen("127.0.0.1:0"), runs).state, State::Warning);
        assert_eq!(media_port(&listen("192.0.2.1:40000"), runs).state, State::Failed);
    }
}

#[test]
fn a_node_that_runs_is_ready_or_says_why_not() {
    let judge = |status, body| readiness(status, body).map(|line| (line.state, line.what));
    assert_eq!(judge(200, "ready").unwrap().0, State::Ok);
    let (state, what) = judge(503, "draining").unwrap();
    assert!(state == State::Failed && what.contains("draining"), "{what}");
    let (state, what) = judge(503, "cut off from the fleet").unwrap();
    assert!(state == State::Failed && what.contains("cut off"), "{what}");
    assert_eq!(judge(404, "/metrics, /livez, /readyz"), None, "not a node's answer");
}

#[test]
fn found_addresses_are_listed_with_their_source_and_warnings() {
    use crate::public_address::{FoundAddresses, PublicAddress, Source};
    let address = |ip: &str, source| PublicAddress { ip: ip.parse().unwrap(), source };
    let seen = address("8.8.8.8", Source::Stun("stun.example.com:3478".to_owned()));
    let warnings = vec!["this machine is behind a symmetric NAT".to_owned()];
    let lines = found(Ok(FoundAddresses { addresses: vec![seen], warnings }), false);
    assert_eq!(
        lines.iter().map(|line| line.state).collect::<Vec<_>>(),
        [State::Ok, State::Warning]
    );
    assert_eq!(lines[0].what, "media is expected at 8.8.8.8 (reported by stun.example.com:3478)");
    let private = || vec![address("10.0.0.2", Source::Earlier)];
    for (simulated, state) in [(false, State::Failed), (true, State::Ok)] {
        let found =
            found(Ok(FoundAddresses { addresses: private(), warnings: Vec::new() }), simulated);
        assert_eq!(found[0].state, state, "{found:?}");
    }
}

#[test]
fn numbers_are_compared_with_meta() {
    let known = |number: &str, platform: &str| PhoneNumber {
        number: number.to_owned(),
        platform_type: platform.to_owned(),
        status: "CONNECTED".to_owned(),
        quality_rating: "GREEN".to_owned(),
        ..PhoneNumber::default()
    };
    let of = number(true);
    for (known_number, state) in [
        (known("918035737458", "CLOUD_API"), State::Ok),
        (known("918035737458", "NOT_APPLICABLE"), State::Failed),
        (known("918035737458", ""), State::Failed),
        (known("918035737459", "CLOUD_API"), State::Failed),
    ] {
        assert_eq!(registered(&of, &known_number).state, state, "{known_number:?}");
        assert!(status_findings(&known_number).is_empty());
    }
    for (status, quality, states) in [
        ("BANNED", "GREEN", &[State::Failed][..]),
        ("PENDING", "UNKNOWN", &[State::Warning]),
        ("CONNECTED", "RED", &[State::Warning]),
        ("RESTRICTED", "YELLOW", &[State::Failed, State::Warning]),
    ] {
        let known_number = PhoneNumber {
            status: status.to_owned(),
            quality_rating: quality.to_owned(),
            ..PhoneNumber::default()
        };
        assert_eq!(
            status_findings(&known_number).iter().map(|line| line.state).collect::<Vec<_>>(),
            states,
            "{status} {quality}"
        );
    }
    for (here, there, state) in [
        (true, Some(true), State::Ok),
        (true, Some(false), State::Failed),
        (true, None, State::Failed),
        (false, Some(false), State::Warning),
        (false, Some(true), State::Warning),
    ] {
        let lines = calling(
            &number(here),
            CallingSettings { enabled: there, ..CallingSettings::default() },
        );
        assert_eq!((lines.len(), lines[0].state), (1, state), "{here} {there:?}");
    }
    // The operator has named this number.
    let of_file = Number { in_file: true, ..number(false) };
    let enabled = CallingSettings { enabled: Some(true), ..CallingSettings::default() };
    assert_eq!(calling(&of_file, enabled)[0].state, State::Failed);
    let on = Some(true);
    let odd = CallingSettings {
        enabled: on,
        sip: on,
        sdes: on,
        restricted: true,
        callback_permission: None,
    };
    let states: Vec<_> = calling(&of, odd).iter().map(|line| line.state).collect();
    assert_eq!(states, [State::Ok, State::Failed, State::Failed, State::Warning]);
    let subscription = |inactive| Subscription { inactive, ..Subscription::default() };
    assert_eq!(
        inactive_subscription(&subscription(true)).map(|line| line.state),
        Some(State::Failed)
    );
    assert!(
        inactive_subscription(&subscription(false)).is_none(),
        "its fields and its URL say more"
    );
}

#[test]
fn urls_are_evaluated_by_their_response() {
    let check = |checked, millis| UrlCheck {
        field: "answerUrl",
        url: DocUrl("https://a.example.com/".into()),
        method: Method::Post,
        checked,
        latency: Duration::from_millis(millis),
    };
    let answered = |valid| Checked::Answered { status: 200, findings: Vec::new(), valid };
    let failed = || Checked::Failed { status: Some(500), why: "the answer was 500".to_owned() };
    for (checked, millis, state) in [
        (answered(true), 20, State::Ok),
        (answered(true), 2_000, State::Warning),
        (answered(false), 20, State::Failed),
        (failed(), 20, State::Failed),
    ] {
        assert_eq!(url(&check(checked, millis), Duration::from_secs(10)).state, state);
    }
    // Calls wait less than this check does.
    assert_eq!(url(&check(answered(true), 2_000), Duration::from_secs(1)).state, State::Failed);
    let hasty = UrlCheck {
        url: DocUrl("https://a.example.com/#rt=500&rc=1".into()),
        ..check(answered(true), 1_200)
    };
    assert_eq!(url(&hasty, Duration::from_secs(10)).state, State::Failed);
    let known_number = UrlCheck { field: "hangupUrl", ..check(answered(true), 2_000) };
    assert_eq!(
        url(&known_number, Duration::from_secs(1)).state,
        State::Warning,
        "no call waits for it"
    );
    let refused = UrlCheck { field: "hangupUrl", ..check(failed(), 20) };
    let found = url(&refused, Duration::from_secs(10));
    assert_eq!(found.state, State::Warning, "calls come nevertheless");
}
