//! An official SDK in a child process that runs one call per line
//! (`tests/outside/peers/plivo_sdk.*`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A running SDK, stopped when dropped.
pub struct Sdk {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Starts the Python SDK if it is installed.
pub fn python(base: &str, auth_id: &str, token: &str) -> Option<Sdk> {
    let python = super::python_with("plivo");
    let how = "pip install plivo, or set OFFHOOK_TEST_PYTHON to a Python that has it";
    if !super::has_peer("plivo", python.is_some(), how) {
        return None;
    }
    Some(Sdk::start(Command::new(python?), "plivo_sdk.py", [base, auth_id, token]))
}

/// Starts the Node SDK if it is installed: `OFFHOOK_TEST_NODE_MODULES` names the folder that
/// contains it.
pub fn node(base: &str, auth_id: &str, token: &str) -> Option<Sdk> {
    let modules = std::env::var("OFFHOOK_TEST_NODE_MODULES").unwrap_or_default();
    let mut node = Command::new("node");
    node.env("NODE_PATH", &modules).args(["--no-deprecation", "-e", "require.resolve('plivo')"]);
    let found = node
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let how =
        "npm install plivo, and set OFFHOOK_TEST_NODE_MODULES to the node_modules that has it";
    if !super::has_peer("plivo-node", found, how) {
        return None;
    }
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules).arg("--no-deprecation");
    Some(Sdk::start(node, "plivo_sdk.js", [base, auth_id, token]))
}

impl Sdk {
    fn start(mut command: Command, script: &str, arguments: [&str; 3]) -> Self {
        let script = format!("{}/tests/outside/peers/{script}", env!("CARGO_MANIFEST_DIR"));
        let command =
            command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the SDK");
        let to = child.stdin.take().expect("its input");
        let from = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, to, from }
    }

    /// Calls a method. The result is in `ok`; an exception is in `error` and `text`.
    pub fn ask(&mut self, method: &str, arguments: Value) -> Value {
        writeln!(self.to, "{}", serde_json::json!([method, arguments])).expect("ask");
        loop {
            let mut line = String::new();
            assert!(
                self.from.read_line(&mut line).expect("an answer") > 0,
                "{method}: the SDK has ended"
            );
            // An SDK may print messages about its retries.
            if let Some(answer) = serde_json::from_str(&line).ok().filter(Value::is_object) {
                return answer;
            }
        }
    }

    /// Calls a method that must succeed.
    pub fn ok(&mut self, method: &str, arguments: Value) -> Value {
        let mut answer = self.ask(method, arguments.clone());
        assert!(answer.get("error").is_none(), "{method} {arguments}: {answer}");
        answer["ok"].take()
    }

    /// Calls a method that must raise this exception.
    pub fn raises(&mut self, error: &str, method: &str, arguments: Value) -> String {
        let answer = self.ask(method, arguments.clone());
        assert_eq!(answer["error"], error, "{method} {arguments}: {answer}");
        answer["text"].as_str().unwrap_or_default().to_owned()
    }

    /// Calls a method that must fail with this text, because the Node SDK has a single exception
    /// type.
    pub fn refuses(&mut self, says: &str, method: &str, arguments: Value) {
        let answer = self.ask(method, arguments.clone());
        let text =
            answer["text"].as_str().unwrap_or_else(|| panic!("{method} {arguments}: {answer}"));
        assert!(text.contains(says), "{method} {arguments}: {answer}");
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
