//! Datagrams from strangers at the media port during a call, through the whole binary
//! (`docs/reference/reliability.md#r19`).

use std::net::UdpSocket;
use std::time::Duration;

use sim::{CallEventKind, CallScript, HangupRule, Sim};

use crate::support::app::App;
use crate::support::node::{Node, NodeConfig, sim_options};

/// Datagrams per second. The promised figure is 50,000 for 10 s on an otherwise idle machine:
/// `OFFHOOK_R19_RATE`.
fn rate() -> Option<u64> {
    std::env::var("OFFHOOK_R19_RATE").ok().and_then(|n| n.parse().ok())
}

fn now() -> std::time::Instant {
    model::Clock::real().now()
}

#[tokio::test(flavor = "multi_thread")]
async fn r19_junk_gets_no_response_and_does_not_disturb_a_call() {
    let app = App::start().await;
    app.xml("/answer", "<Response><Speak loop=\"0\">This goes on and on.</Speak></Response>")
        .xml("/hangup", "");
    let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
    let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    let node = Node::start(&node_config).await;
    sim.set_node_url(node.public.clone());
    let config = std::fs::read_to_string(node.dir.path().join("offhook.toml")).unwrap();
    let media = config
        .lines()
        .find_map(|l| l.strip_prefix("media = \""))
        .unwrap()
        .trim_end_matches('"')
        .to_owned();

    let seconds = if rate().is_some() { 10 } else { 2 };
    let hangup = HangupRule::AfterAnswer(Duration::from_secs(seconds + 2));
    let mut events = sim.place_call(CallScript { hangup, ..CallScript::default() });
    let mut happened = Vec::new();
    while !happened.contains(&CallEventKind::FirstAudio) {
        happened.push(events.next().await.expect("the call goes on").kind);
    }
    let (before, _) = node.memory_kib();
    let counted = async || {
        let (packets, late) = ("offhook_media_packets_total", "offhook_media_late_ticks_total");
        let in_out = [
            node.metric(packets, &[("direction", "in")]).await,
            node.metric(packets, &[("direction", "out")]).await,
        ];
        (now(), in_out, node.metric(late, &[]).await)
    };
    let (begun, packets_before, late_before) = counted().await;
    let per_second = rate().unwrap_or(4_000);
    let flood = tokio::task::spawn_blocking(move || {
        let sockets: Vec<UdpSocket> =
            (0..40).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut hello = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54, 1, 0, 0, 42];
        hello.resize(67, 0);
        let kinds = [
            hello,
            vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40],
            [&[0x80, 111, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4][..], &[0; 160]].concat(),
            vec![0x80, 200, 0, 1, 0, 0, 0, 1],
            [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat(),
            [&[0, 3, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat(),
            vec![0x40, 0, 0, 4, 1, 2, 3, 4],
            vec![0xff; 1_200],
        ];
        let clock = model::Clock::real();
        let begun = clock.now();
        let mut sent = 0u64;
        while sent < seconds * per_second {
            let due = (clock.now() - begun).as_micros() * u128::from(per_second) / 1_000_000;
            while u128::from(sent) < due.min(u128::from(seconds * per_second)) {
                let n = usize::try_from(sent).unwrap();
                let _ = sockets[n % sockets.len()].send_to(&kinds[n % kinds.len()], &media);
                sent += 1;
            }
            // Send in bursts every millisecond, so that the sender leaves processor time to the
            // node.
            std::thread::sleep(Duration::from_millis(1));
        }
        for socket in sockets {
            socket.set_nonblocking(true).unwrap();
            let got = socket.recv_from(&mut [0; 2_000]);
            assert!(got.is_err(), "a stranger got {got:?}");
        }
    });
    flood.await.unwrap();
    let grown = node.memory_kib().0.saturating_sub(before);
    assert!(grown <= 16 << 10, "{grown} KiB more");
    let (ended, packets, late) = counted().await;
    let lasted = (ended - begun).as_secs_f64();
    let shares = [0, 1].map(|which| (packets[which] - packets_before[which]) / (lasted * 50.0));
    let late = (late - late_before) / (lasted * 200.0);
    let report = format!(
        "{} junk datagrams in {lasted:.1} s: {grown} KiB more, of the call's packets {:.2} % came in and {:.2} % went out, \
         {:.2} % of ticks were late",
        seconds * per_second,
        shares[0] * 100.0,
        shares[1] * 100.0,
        late * 100.0
    );
    #[allow(clippy::print_stderr, reason = "figures are told")]
    {
        eprintln!("{report}");
    }
    while let Some(event) = events.next().await {
        happened.push(event.kind);
    }
    let Some(CallEventKind::Ended(end)) = happened.last() else { panic!("no end: {happened:#?}") };
    assert!(end.ok, "{happened:#?}");
    let audible = Duration::from_millis(end.heard_ms);
    // The speech has pauses between words.
    assert!(
        audible > Duration::from_secs(seconds) / 2,
        "the caller received audio without a pause: {audible:?}; {report}"
    );
    if rate().is_some() {
        assert!(late <= 0.01 && shares.iter().all(|share| *share >= 0.99), "{report}");
        assert_eq!(end.audio_gaps, 0, "{report}");
    }
}
