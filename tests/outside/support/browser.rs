//! A real Chromium, controlled over the DevTools protocol: opens pages, runs scripts, takes
//! screenshots.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Returns the path of Chromium's binary if it is installed. Its build without windows starts several
/// times faster.
pub fn chromium() -> Option<&'static str> {
    static PATH: OnceLock<Option<String>> = OnceLock::new();
    let is_installed = |name: &String| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
    PATH.get_or_init(|| {
        let configured = std::env::var("CHROMIUM").ok();
        configured.into_iter().chain(names.map(str::to_owned)).find(is_installed)
    })
    .as_deref()
}

/// Returns true if Chromium is installed. Otherwise prints why the test is skipped.
pub fn has_chromium() -> bool {
    super::has_peer(
        "chromium",
        chromium().is_some(),
        "Debian's package chromium-headless-shell or chromium, or set CHROMIUM to its path",
    )
}

/// Returns axe-core's script if it is installed: `OFFHOOK_TEST_NODE_MODULES` names the folder that
/// contains it.
pub fn axe() -> Option<String> {
    let modules = std::env::var_os("OFFHOOK_TEST_NODE_MODULES").map(std::path::PathBuf::from);
    let found = modules.and_then(|at| std::fs::read_to_string(at.join("axe-core/axe.min.js")).ok());
    let how =
        "npm install axe-core, and set OFFHOOK_TEST_NODE_MODULES to the node_modules that has it";
    if super::has_peer("axe-core", found.is_some(), how) { found } else { None }
}

/// A condition: the page's scripts have run, if it has any.
pub const READY: &str = "(document.documentElement?.dataset.ready !== undefined || (document.readyState === 'complete' && \
                         !document.querySelector('script[type=module]')))";

/// A browser with one page, or another tab of it.
pub struct Browser {
    /// Set for the first page.
    child: Option<(Child, tempfile::TempDir)>,
    port: u16,
    socket: WebSocketStream<TcpStream>,
    next: u64,
    /// Errors that the page logged to its console, and uncaught exceptions.
    pub errors: Vec<String>,
}

impl Browser {
    pub async fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(chromium().expect("asked before"))
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                "--autoplay-policy=no-user-gesture-required",
                "--remote-debugging-port=0",
                "--window-size=1200,900",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start Chromium");
        let stderr = child.stderr.take().expect("its standard error");
        let (sender, port) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut sender = Some(sender);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let port = line
                    .strip_prefix("DevTools listening on ws://127.0.0.1:")
                    .and_then(|rest| rest.split('/').next())
                    .and_then(|p| p.parse::<u16>().ok());
                if let (Some(port), Some(sender)) = (port, sender.take_if(|_| port.is_some())) {
                    let _ = sender.send(port);
                }
            }
        });
        let port = tokio::time::timeout(Duration::from_secs(60), port)
            .await
            .expect("Chromium tells its port within a minute")
            .expect("Chromium starts");
        Self::attach(Some((child, profile)), port, url).await
    }

    /// Opens another tab of the same browser with the same cookies. It closes with the first.
    pub async fn another(&self, url: &str) -> Self {
        Self::attach(None, self.port, url).await
    }

    async fn attach(child: Option<(Child, tempfile::TempDir)>, port: u16, url: &str) -> Self {
        let base = format!("http://127.0.0.1:{port}");
        let target =
            super::http::send("PUT", &format!("{base}/json/new?about:blank"), &[], "").await.json();
        let address = target["webSocketDebuggerUrl"].as_str().expect("a page's socket").to_owned();
        #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect to Chromium");
        let (socket, _) =
            tokio_tungstenite::client_async(address, stream).await.expect("DevTools handshake");
        let mut browser = Self { child, port, socket, next: 0, errors: Vec::new() };
        browser.call("Runtime.enable", json!({})).await;
        browser.call("Log.enable", json!({})).await;
        browser.call("Page.enable", json!({})).await;
        browser.call("Page.navigate", json!({ "url": url })).await;
        browser.until("document.readyState === 'complete'").await;
        browser
    }

    /// Closes the tab.
    pub async fn close(&mut self) {
        self.call("Page.close", json!({})).await;
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let text = json!({"id": id, "method": method, "params": params}).to_string();
        self.socket.send(Message::text(text)).await.expect("send to Chromium");
        let answer = async {
            loop {
                let message = self.socket.next().await.expect("Chromium lives").expect("a frame");
                let Message::Text(text) = message else { continue };
                let value: Value = serde_json::from_str(&text).expect("DevTools speaks JSON");
                match value["method"].as_str() {
                    Some("Runtime.exceptionThrown") => {
                        self.errors.push(value["params"].to_string())
                    }
                    Some("Runtime.consoleAPICalled") if value["params"]["type"] == "error" => {
                        self.errors.push(value["params"]["args"].to_string());
                    }
                    Some("Log.entryAdded") if value["params"]["entry"]["level"] == "error" => {
                        self.errors.push(value["params"]["entry"].to_string());
                    }
                    _ => {}
                }
                if value["id"] == id {
                    return value;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answer)
            .await
            .expect("Chromium answers within a minute")
    }

    /// Runs a script, awaits its promise, and returns the value.
    pub async fn eval(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["result"]["exceptionDetails"].is_null(), "{script}: {answer}");
        answer["result"]["result"]["value"].clone()
    }

    /// Waits until an expression is true in a page that has loaded.
    pub async fn until(&mut self, condition: &str) {
        let mut every = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..450 {
            every.tick().await;
            let condition = format!("document.readyState === 'complete' && Boolean({condition})");
            if self.eval(&condition).await == true {
                return;
            }
        }
        let text = self.eval("document.body.innerText").await;
        panic!(
            "not true within 45 s: {condition}\nthe page says:\n{text}\nerrors: {:#?}",
            self.errors
        );
    }

    /// Saves a screenshot of the page as PNG.
    pub async fn screenshot(&mut self, path: &std::path::Path) {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let data = answer["result"]["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        std::fs::write(path, bytes).expect("write the picture");
    }

    /// Returns axe-core's serious and critical violations in the current page. The script is
    /// injected through DevTools, which bypasses the content security policy.
    pub async fn barriers(&mut self, axe: &str) -> Vec<String> {
        if self.eval("typeof axe").await == "undefined" {
            self.eval(&format!("{axe};0")).await;
        }
        // Wait for colour transitions to end. A headless browser that does not render never ends an
        // animation, hence the timeout.
        self.eval(
            "Promise.race([new Promise((done) => setTimeout(done, 1000)), Promise.allSettled(document.getAnimations()\
             .filter((a) => a.effect.getTiming().iterations !== Infinity).map((a) => a.finished))]).then(() => 0)",
        )
        .await;
        let found = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations\
            .filter((v) => ['serious', 'critical'].includes(v.impact)).flatMap((v) => v.nodes.map((n) => \
            `${v.id}: ${n.html.slice(0, 200)} ${[...n.any, ...n.all, ...n.none].map((c) => c.message).join('; ')}`)))";
        let found = self.eval(found).await;
        found
            .as_array()
            .expect("a list")
            .iter()
            .map(|v| v.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Sets the size of the viewport.
    pub async fn size(&mut self, width: u32, height: u32) {
        let params =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// Sends any DevTools command.
    pub async fn devtools(&mut self, method: &str, params: Value) -> Value {
        self.call(method, params).await["result"].clone()
    }

    /// Opens a path of the same host and waits until the page has loaded.
    pub async fn visit(&mut self, path: &str) {
        // Also works if the path is the current page.
        self.eval(&format!("globalThis.left = 1; location.href = '{path}'")).await;
        let there = "typeof left === 'undefined' && document.readyState === 'complete' && location.pathname + location.search";
        self.until(&format!("{there} === '{path}'")).await;
    }

    /// Waits until an element matches a selector and clicks it.
    pub async fn click(&mut self, selector: &str) {
        // Find and click in one script, because the page may change in between.
        let found = format!("document.querySelector({selector:?})");
        self.until(&format!("{READY} && ((found) => found && (found.click(), true))({found})"))
            .await;
    }

    /// Types into a field.
    pub async fn fill(&mut self, selector: &str, value: &str) {
        self.until(&format!("document.querySelector({selector:?})")).await;
        let fill = format!(
            "(() => {{ const field = document.querySelector({selector:?}); field.focus(); field.value = {}; for (const kind of \
             ['input', 'change']) field.dispatchEvent(new Event(kind, {{ bubbles: true }})); }})()",
            json!(value)
        );
        self.eval(&fill).await;
    }

    /// Emulates a preference for dark or light colours.
    pub async fn prefer(&mut self, scheme: &str) {
        let params = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", params).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            // The group, because Debian's program is a script that starts the browser.
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
        }
    }
}
