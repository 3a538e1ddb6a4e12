//! Headless Chromium, controlled over a pipe with the DevTools protocol.

use crate::{skip::skip, wait_for};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use serde_json::{Value, json};
use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Names of the program in distributions.
const PROGRAMS: [&str; 2] = ["chromium", "chromium-browser"];
/// Timeout of an answer. Generous, because the browser starts a dozen processes.
const ANSWER: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: RefCell<File>,
    messages: Receiver<Value>,
    next_id: Cell<u64>,
    session: RefCell<Option<String>>,
    /// Errors and warnings of the page.
    errors: RefCell<Vec<String>>,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser. `None`, after a skip, where there is none.
    pub fn start() -> Option<Self> {
        let works = |program: &&str| {
            let mut version = Command::new(program);
            let version = version.arg("--version").stderr(Stdio::null()).output();
            version.is_ok_and(|o| o.status.success())
        };
        let Some(program) = PROGRAMS.into_iter().find(works) else {
            skip("there is no Chromium");
            return None;
        };
        let profile = tempfile::tempdir().expect("a directory");
        // Chromium reads commands from descriptor 3 and writes to 4; a shell sets them up.
        let (to_read, to_write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (from_read, from_write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        // Numbers other than these two, inherited by the shell.
        let inherited = |end: &OwnedFd| fcntl(end, FcntlArg::F_DUPFD(20)).expect("a descriptor");
        let (reads, writes) = (inherited(&to_read), inherited(&from_write));
        let script = format!("exec \"$@\" 3<&{reads} 4>&{writes} {reads}<&- {writes}>&-");
        let child = Command::new("bash")
            .args(["-c", &script, "bash", program])
            // The sandbox does not work as root and in namespaces.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-sync",
            ])
            .args([
                "--disable-component-update",
                "--disable-default-apps",
                "--disable-extensions",
            ])
            .args(["--force-color-profile=srgb", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        drop((to_read, from_write));
        for copy in [reads, writes] {
            nix::unistd::close(copy).expect("closed");
        }
        let (tell, messages) = channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(File::from(from_read));
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                if let Ok(value) = serde_json::from_slice(&message)
                    && tell.send(value).is_err()
                {
                    return;
                }
                message.clear();
            }
        });
        let browser = Self {
            child,
            commands: RefCell::new(File::from(to_write)),
            messages,
            next_id: Cell::new(1),
            session: RefCell::new(None),
            errors: RefCell::default(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        let session = attached["sessionId"].as_str().map(str::to_owned);
        *browser.session.borrow_mut() = session;
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.call(domain, json!({}));
        }
        let size = json!({"width": 1200, "height": 1600, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", size);
        browser.call(
            "Emulation.setFocusEmulationEnabled",
            json!({"enabled": true}),
        );
        Some(browser)
    }

    /// Calls a method of the protocol.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &*self.session.borrow() {
            command["sessionId"] = json!(session);
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        self.commands
            .borrow_mut()
            .write_all(&text)
            .expect("a browser");
        loop {
            let message = self.messages.recv_timeout(ANSWER);
            let message = message.unwrap_or_else(|e| panic!("{method}: no answer: {e}"));
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    /// Records an error or a warning.
    fn note(&self, event: &Value) {
        let params = &event["params"];
        let wrong = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"]
                .iter()
                .any(|kind| params["type"] == *kind),
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if wrong {
            self.errors.borrow_mut().push(params.to_string());
        }
    }

    /// Errors and warnings of the page so far.
    pub fn errors(&self) -> Vec<String> {
        // Earlier events arrive before this answer.
        self.eval("0");
        self.errors.take()
    }

    pub fn open(&self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// Evaluates an expression in the page; a promise is awaited.
    pub fn eval(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait(&self, what: &str, expression: &str) {
        wait_for(what, ANSWER, || {
            (self.eval(expression) == true).then_some(())
        });
    }

    /// Presses and releases a key, given by name and code.
    pub fn press(&self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let params =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// A screenshot of the visible page: PNG in base64.
    pub fn screenshot(&self) -> String {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}));
        shot["data"].as_str().expect("a picture").to_owned()
    }

    /// The colours of a screenshot at these points: red, green, blue.
    pub fn colours(&self, png: &str, points: &[(f64, f64)]) -> Vec<[u8; 3]> {
        self.open("about:blank");
        let script = format!(
            "(async () => {{
                const image = new Image();
                image.src = 'data:image/png;base64,{png}';
                await image.decode();
                const canvas = new OffscreenCanvas(image.width, image.height);
                const pen = canvas.getContext('2d');
                pen.drawImage(image, 0, 0);
                return {}.map(([x, y]) => [...pen.getImageData(Math.round(x), Math.round(y), 1, 1).data].slice(0, 3));
            }})()",
            json!(points)
        );
        serde_json::from_value(self.eval(&script)).expect("colours")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its child processes end with it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
