//! Checks that modules import only modules of lower layers.
//!
//! Reads the `crate::` paths of every file in `src/` and `crates/engine/src/`, except tests, and
//! compares them with the tables below, which `ARCHITECTURE.md` draws. Modules of one row do not
//! import each other unless listed. Between crates, Cargo checks the imports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of a crate in rows, lowest first, and the imports that are allowed within a row.
struct Layers {
    src: &'static str,
    rows: &'static [&'static [&'static str]],
    /// (importing module, imported module).
    neighbours: &'static [(&'static str, &'static str)],
}

const ENGINE: Layers = Layers {
    src: "crates/engine/src",
    rows: &[
        &["disk_space", "feed", "limiter"],
        &["admission", "answer", "meta", "notices", "stream", "objects", "openid"],
        &["agents", "alerts", "call", "erasure", "inbox", "numbers", "people"],
        &["webhook", "shared_settings"],
        &["cluster", "config"],
    ],
    neighbours: &[
        // An AI agent takes calls and conversations: it writes their documents.
        ("agents", "call"),
        ("agents", "inbox"),
        // A person's messages and recordings are deleted together.
        ("erasure", "inbox"),
        ("erasure", "call"),
        // The upgrade request of a stream is signed like every request to a customer.
        ("stream", "answer"),
        // Messages use the outbox of calls, and calls appear in conversations.
        ("inbox", "call"),
    ],
};

const ROOT: Layers = Layers {
    src: "src",
    rows: &[
        &["observe", "public_address", "speech_settings"],
        &["api", "phone", "console"],
        &["doctor", "node"],
        &["cli"],
    ],
    neighbours: &[
        // The console calls the functions behind the REST APIs.
        ("console", "api"),
        // Refused log-ins of phones are in the audit trail, like those at the REST APIs.
        ("phone", "api"),
    ],
};

/// The files that open connections: to servers of customers and of the operator (`egress`), to
/// Graph, to the operator's mail server, to a speech recogniser's WebSocket, to the trace collector, to the other nodes of a fleet,
/// and the simulated Meta.
const CLIENTS: &[&str] = &[
    "crates/egress/",
    "crates/engine/src/cluster/peers/",
    "crates/engine/src/alerts/mail.rs",
    "crates/engine/src/meta/graph.rs",
    "crates/speech/src/recognise/websocket.rs",
    "src/node/dev/balancer.rs",
    "src/node/otel.rs",
    "crates/sim/",
];

#[test]
fn r17_only_the_listed_files_connect_to_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    collect(&root.join("crates"), &mut files);
    let signs = [
        "client::legacy",
        "hyper::client",
        "HttpsConnectorBuilder",
        "TcpStream::connect",
        "TcpSocket::",
        "lookup_host",
    ];
    // A socket that only listens.
    let listens = |file: &str, sign: &str| file == "src/api/server.rs" && sign == "TcpSocket::";
    for file in files {
        let inside = file.strip_prefix(root).expect("a source file").to_string_lossy().into_owned();
        if CLIENTS.iter().any(|client| inside.starts_with(client)) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a readable file");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for sign in signs {
            assert!(
                !text.contains(sign) || listens(&inside, sign),
                "{inside}: {sign}; only {CLIENTS:?} may connect to others"
            );
        }
    }
}

#[test]
fn r26_unsafe_code_is_in_media_and_speech_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    collect(&root.join("crates"), &mut files);
    let forbids =
        |path: &Path| fs::read_to_string(path).expect("a root").contains("#![forbid(unsafe_code)]");
    for file in files {
        let inside = file.strip_prefix(root).expect("a source file").to_string_lossy().into_owned();
        let may = ["crates/media/", "crates/speech/"].iter().any(|part| inside.starts_with(part));
        if inside.ends_with("src/lib.rs") {
            assert_ne!(may, forbids(&file), "{inside}");
        }
    }
}

#[test]
fn imports_point_downwards() {
    let mut wrong = BTreeSet::new();
    for layers in [&ENGINE, &ROOT] {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(layers.src);
        let mut files = Vec::new();
        collect(&src, &mut files);
        assert!(files.len() > 50, "{}: too few files", layers.src);
        for file in files {
            let inside = file.strip_prefix(&src).expect("a file of src");
            let here = module_of(inside);
            // `lib.rs` and `main.rs` belong to no module.
            let Some(from) = layers.module(&here) else { continue };
            let text = fs::read_to_string(&file).expect("a readable file");
            for path in imports(&text) {
                let Some(to) = layers.module(&path) else { continue };
                if !layers.allows(from, to) {
                    wrong.insert(format!(
                        "{}/{}: {from} may not import {to} (crate::{path})",
                        layers.src,
                        inside.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

impl Layers {
    fn allows(&self, from: &str, to: &str) -> bool {
        let row = |module: &str| self.rows.iter().position(|row| row.contains(&module));
        from == to || row(to) < row(from) || self.neighbours.contains(&(from, to))
    }

    /// The module of a path such as `call::rooms::Rooms`.
    fn module(&self, path: &str) -> Option<&'static str> {
        let first = path.split("::").next()?;
        self.rows.iter().flat_map(|row| row.iter().copied()).find(|module| *module == first)
    }
}

/// `call/rooms/state.rs` → `call::rooms::state`.
fn module_of(file: &Path) -> String {
    let path = file.with_extension("");
    let mut parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts.join("::")
}

/// Every path after `crate::` outside comments and tests, groups taken apart.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line.trim(), " "])
        .collect();
    code.match_indices("crate::")
        .flat_map(|(at, found)| expand("", &code[at + found.len()..]))
        .collect()
}

/// The paths that a use tree names: `a::{b, c::d}` → `a::b`, `a::c::d`.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let name_end =
        tree.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(tree.len());
    let (name, rest) = tree.split_at(name_end);
    let path = format!("{prefix}{name}");
    let Some(group) = rest.strip_prefix('{').filter(|_| name.is_empty() || name.ends_with("::"))
    else {
        return vec![path.trim_end_matches(':').to_owned()];
    };
    let (mut depth, mut start, mut items) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
        .into_iter()
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .flat_map(|item| expand(&path, item))
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(&path, files);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = "use crate::store::{Seal, Row};\nuse crate::{\n    feed::Feed,\n    call::rooms::{Input, x::{Y}},\n};\n\
        // crate::cli\nfn f() -> crate::store::Store {}\npub(crate) fn g() {}\n#[cfg(test)]\nmod tests { use crate::node::X; }\n";
    let expected = [
        "store::Seal",
        "store::Row",
        "feed::Feed",
        "call::rooms::Input",
        "call::rooms::x::Y",
        "store::Store",
    ];
    assert_eq!(imports(text), expected);
    assert_eq!((ENGINE.module("callous"), ENGINE.module("call::shell")), (None, Some("call")));
    assert_eq!(module_of(Path::new("call/rooms/mod.rs")), "call::rooms");
    assert!(ENGINE.allows("webhook", "call") && !ENGINE.allows("call", "webhook"));
}
