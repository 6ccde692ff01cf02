//! Plivo's own Python SDK, driven line by line (`peers/plivo_calls.py`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::node::{AUTH_ID, AUTH_TOKEN};

/// Whether this machine has it; says so where it has not.
pub fn is_there() -> bool {
    let how = "pip install plivo, or set OFFHOOK_TEST_PYTHON to a Python that has it";
    super::has_peer("plivo", super::python_with("plivo").is_some(), how)
}

pub struct Sdk {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Sdk {
    /// One that speaks to this node, as the test account.
    pub fn start(node: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/outside/peers/plivo_calls.py");
        let mut child = Command::new(super::python_with("plivo").expect("asked before"))
            .args([script, node, AUTH_ID, AUTH_TOKEN])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the SDK");
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, to, from }
    }

    /// Has the SDK do that: what it gave as `ok`, or what it raised as `error`.
    pub fn ask(&mut self, what: &str, argument: impl Into<Value>) -> Value {
        let to = self.to.as_mut().expect("its input");
        writeln!(to, "{}", serde_json::json!([what, argument.into()])).expect("ask");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
