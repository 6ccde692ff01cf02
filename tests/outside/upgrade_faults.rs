//! Upgrades whose new process fails. No call may be lost: the old process keeps them, or, if it has
//! closed the store already, a new process of the old binary takes them over.

use std::time::Duration;

use futures_util::future::join_all;
use model::Clock;
use sim::CallEventKind;

use super::upgrade::{check_replay, end, path, text, until};
use super::upgrade_load::{Caller, KEYS, hangups, report, start};
use crate::support::node::program;

/// Number of live calls.
const CALLS: usize = 4;

/// A program that starts the new binary and passes on its messages, until one of this kind comes.
/// Then the binary is killed or stopped, or the message is changed.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import json, os, select, signal, socket, sys
point, how, program = "POINT", """HOW""", "PROGRAM"
old = socket.socket(fileno=os.dup(0))
own, new = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
binary = os.getpid()
if os.fork():
    os.dup2(new.fileno(), 0)
    os.execv(program, [program, *sys.argv[1:]])
new.close()
while True:
    for source in select.select([old, own], [], [])[0]:
        data, files, _, _ = socket.recv_fds(source, 1 << 20, 253)
        if not data:
            sys.exit()
        message = json.loads(data)
        if message["message"] == point:
            if how.startswith("{"):
                message.update(json.loads(how))
            else:
                os.kill(binary, getattr(signal, how))
                if source is own:
                    continue
        try:
            socket.send_fds(own if source is old else old, [json.dumps(message).encode()], files)
        except BrokenPipeError:
            sys.exit()
        for file in files:
            os.close(file)
"#;

/// The new binary, and what `offhook upgrade` says about its failure.
struct Fault {
    script: String,
    says: &'static str,
    /// Whether the store is closed by then. `None` if that depends on the machine.
    is_late: Option<bool>,
}

impl Fault {
    fn new(script: &str, says: &'static str) -> Self {
        Self { script: script.to_owned(), says, is_late: Some(false) }
    }

    fn at(point: &str, how: &str, says: &'static str) -> Self {
        let script = STAND_IN.replace("POINT", point).replace("HOW", how);
        let is_late = Some(matches!(point, "released" | "serving"));
        Self { script: script.replace("PROGRAM", &program()), says, is_late }
    }

    /// The new binary has this number of file descriptors.
    fn descriptors(number: u32) -> Self {
        let script = format!("#!/bin/sh\nulimit -n {number}\nexec {} \"$@\"\n", program());
        Self { is_late: None, ..Self::new(&script, "the new process") }
    }
}

/// Upgrades to failing binaries, one after the other, and checks after each that the calls go on.
async fn fail(faults: Vec<Fault>) {
    let Some((mut world, received)) = start(CALLS).await else { return };
    let sim = world.sim.take().expect("a simulated Meta");
    let mut callers = Vec::new();
    for nr in 0..CALLS {
        callers.push(Caller::place(&sim, format!("9194{nr:08}")));
    }
    for caller in &mut callers {
        until(&mut caller.events, |event| *event == CallEventKind::FirstAudio).await;
    }
    let mut placed = CALLS;
    for (nr, Fault { script, says, is_late }) in faults.into_iter().enumerate() {
        let binary = world.script(&script);
        if script.is_empty() {
            std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .expect("set");
        }
        let started_again = world.successors.0.len();
        let output = world.upgrade(&["--binary", path(&binary)]).await;
        let printed = text(&output.stderr);
        assert!(printed.contains(says), "{nr}: {says}: {printed}");
        let (goes_on, is_again) =
            (printed.contains("goes on as before"), printed.contains("was started again"));
        assert!(
            goes_on != is_again && is_late.is_none_or(|late| late == is_again),
            "{nr}: {printed}"
        );
        assert_eq!(
            world.successors.0.len() - started_again,
            usize::from(is_again),
            "{nr}: {printed}"
        );
        let entered = join_all(callers.iter_mut().map(|caller| caller.enter_keys(0))).await;
        assert!(entered.iter().all(|is_live| *is_live), "{nr}: a call is lost");
        let mut longest_gap = Duration::ZERO;
        for caller in &callers {
            caller.until_received(&received).await;
            let report = caller.arrivals.take(Clock::real().now());
            assert_eq!((report.reused_indexes, report.repeated_datagrams), (0, 0), "{nr}");
            assert!(report.packets > 50, "{nr}: {report:?}");
            longest_gap = longest_gap.max(report.longest_gap);
        }
        report(&format!("fault {nr}: {}; longest gap {longest_gap:?}", printed.trim_end()));
        assert_eq!(world.node.api("Call/?limit=1").await.status, 200, "{nr}");
        let mut newcomer = Caller::place(&sim, format!("9195{nr:08}"));
        until(&mut newcomer.events, |event| *event == CallEventKind::FirstAudio).await;
        newcomer.events.control().hangup().await;
        assert!(end(newcomer.events).await.ok, "{nr}: a new call is a normal one");
        placed += 1;
    }
    let rounds: String = std::iter::repeat_n("0123456789", 20).collect();
    for caller in callers {
        let got = received.lock().unwrap().get(&caller.from).cloned().expect("digits");
        assert_eq!(got, rounds[..caller.pressed], "{KEYS} keys are entered after each fault");
        caller.events.control().hangup().await;
        assert!(end(caller.events).await.ok);
    }
    assert_eq!(hangups(&world, placed).await, placed);
    let requests = world.app.requests();
    for answer in requests.iter().filter(|request| request.path == "/answer") {
        check_replay(&world, answer.param("CallUUID")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_if_the_new_process_crashes() {
    let faults = ["offer", "ready", "calls", "checked", "legs", "playing", "released", "serving"];
    fail(faults.map(|point| Fault::at(point, "SIGKILL", "the new process ended")).into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_if_the_new_process_hangs() {
    fail(vec![
        Fault::at("offer", "SIGSTOP", "did not answer within 5 s"),
        Fault::at("calls", "SIGSTOP", "did not answer within 3 s"),
        Fault::at("legs", "SIGSTOP", "did not answer within 1 s"),
        Fault::at("playing", "SIGSTOP", "did not answer within 1 s"),
        Fault::at("released", "SIGSTOP", "did not answer within 30 s"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_if_the_new_binary_cannot_take_over() {
    fail(vec![
        Fault::at("offer", r#"{"version": 99}"#, "refused: the running process sent version 99"),
        Fault::at("ready", r#"{"message": "refused", "why": "no"}"#, "refused: no"),
        Fault::at("calls", r#"{"version": 99}"#, "process sent calls of version 99"),
        Fault::at("checked", r#"{"refused": ["x: cannot"]}"#, "calls cannot be handed over"),
        Fault::at("playing", r#"{"message": "refused", "why": "no"}"#, "refused: no"),
        Fault::descriptors(8),
        Fault::descriptors(16),
        Fault::descriptors(20),
        Fault::descriptors(24),
        Fault::new("", "could not be started"),
        Fault::new("#!/bin/true\n", "the new process ended"),
        Fault::new("#!/bin/sh\nexec cat\n", "did not answer within 5 s"),
    ])
    .await;
}
