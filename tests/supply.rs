//! The dependency tree, checked without a network: versions not below those that fix known
//! advisories, a single TLS stack, only the registry as a source, and a line in `deploy/NATIVE.md`
//! for each piece of C (`docs/reference/reliability.md#r27`). `cargo deny check` covers advisories,
//! licences and the rest (`deny.toml`, `deploy/RELEASE.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Lowest permitted versions (`docs/reference/reliability.md#r27`). Older ones have known
/// advisories.
const FLOORS: &[(&str, [u64; 3])] = &[
    ("h2", [0, 4, 16]),
    ("quick-xml", [0, 41, 0]),
    ("rustls", [0, 23, 18]),
    ("rustls-webpki", [0, 103, 13]),
    ("aws-lc-sys", [0, 39, 0]),
    ("ring", [0, 17, 12]),
    ("hickory-proto", [0, 26, 1]),
    ("hickory-net", [0, 26, 1]),
    ("sqlx", [0, 8, 1]),
    ("idna", [1, 0, 0]),
    ("tungstenite", [0, 20, 1]),
    ("tokio", [1, 44, 2]),
];

/// Additional crypto libraries or TLS stacks, and tools that a build must not need.
const BANNED: &[&str] = &[
    "openssl",
    "openssl-sys",
    "openssl-src",
    "native-tls",
    "ring",
    "boring",
    "boring-sys",
    "mbedtls",
    "aws-lc-fips-sys",
    "bindgen",
    "libloading",
    "reqwest",
    "ureq",
    "curl",
    "curl-sys",
];

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the packages of `Cargo.lock`.
fn locked() -> Vec<toml::Table> {
    let lock: toml::Table = read("Cargo.lock").parse().expect("TOML");
    lock["package"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|p| p.as_table().expect("a table").clone())
        .collect()
}

fn text<'a>(package: &'a toml::Table, key: &str) -> &'a str {
    package.get(key).and_then(toml::Value::as_str).unwrap_or_default()
}

/// Returns the packages in a build for this machine with their versions, without those of other
/// targets and of tests.
fn built() -> BTreeMap<String, String> {
    let args = [
        "tree",
        "--locked",
        "--offline",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let out = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut packages = BTreeMap::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            packages.insert(name.to_owned(), version.trim_start_matches('v').to_owned());
        }
    }
    assert!(packages.len() > 100, "{packages:?}");
    packages
}

#[test]
fn r27_no_version_is_below_the_minimum() {
    for package in locked() {
        let (name, version) = (text(&package, "name"), text(&package, "version"));
        let Some((_, floor)) = FLOORS.iter().find(|(known, _)| *known == name) else { continue };
        let plain = version.split(['-', '+']).next().unwrap_or_default();
        let parts: Vec<u64> =
            plain.split('.').map(|part| part.parse().expect("a number")).collect();
        assert!(parts.as_slice() >= floor.as_slice(), "{name} {version} is below {floor:?}");
    }
}

#[test]
fn r27_everything_comes_from_the_registry_with_a_checksum() {
    for package in locked() {
        let (name, source) = (text(&package, "name"), text(&package, "source"));
        // Skip the members of this workspace.
        if name == "offhook" || name.starts_with("offhook-") {
            continue;
        }
        assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{name}");
        assert_eq!(text(&package, "checksum").len(), 64, "{name}");
    }
}

/// Appends all Rust sources of the program.
fn sources(folder: &Path, to: &mut String) {
    for file in std::fs::read_dir(folder).expect("a folder").flatten().map(|file| file.path()) {
        if file.is_dir() {
            sources(&file, to);
        } else if file.extension().is_some_and(|ext| ext == "rs") {
            to.push_str(&std::fs::read_to_string(&file).expect("text"));
        }
    }
}

#[test]
fn r27_every_dependency_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let members = std::fs::read_dir(root.join("crates"))
        .expect("a folder")
        .flatten()
        .map(|member| member.path());
    for package in members.chain([root.to_owned()]) {
        let manifest = std::fs::read_to_string(package.join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let mut program = String::new();
        sources(&package.join("src"), &mut program);
        for name in manifest["dependencies"].as_table().expect("dependencies").keys() {
            let name = name.replace('-', "_");
            let used = [format!("{name}::"), format!("use {name} as "), format!("use {name};")];
            let used = used.iter().any(|use_of| program.contains(use_of));
            assert!(used, "{} does not use {name}: remove it", package.display());
        }
    }
}

#[test]
fn r27_one_tls_stack_and_no_build_tool_besides_a_c_compiler() {
    let built = built();
    for name in BANNED {
        assert!(!built.contains_key(*name), "{name} is in the tree: cargo tree -i {name}");
    }
    assert!(built.contains_key("rustls") && built.contains_key("aws-lc-rs"));
    // Everything banned here is banned by cargo-deny too.
    let deny = read("deny.toml");
    for name in ["ring", "openssl-sys", "native-tls", "bindgen"] {
        assert!(deny.contains(&format!("{{ crate = \"{name}\" }}")), "{name}");
    }
}

#[test]
fn r27_all_c_code_is_listed() {
    let page = read("deploy/NATIVE.md");
    let named: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(2)?.split_once(' '))
        .filter(|(name, _)| name.ends_with("-sys"))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect();
    // By convention, the name of a crate that links a library ends in `-sys`. These only declare
    // what the system provides.
    let declares = [
        "linux-raw-sys",
        "windows-sys",
        "core-foundation-sys",
        "security-framework-sys",
        "js-sys",
        "web-sys",
    ];
    let native: BTreeSet<(String, String)> = built()
        .into_iter()
        .filter(|(name, _)| name.ends_with("-sys") && !declares.contains(&name.as_str()))
        .collect();
    assert_eq!(named, native, "deploy/NATIVE.md and the tree");
}

/// The targets of cargo-fuzz are built by hand only, so a missing dependency would not be noticed.
#[test]
fn r25_the_fuzz_package_has_the_dependencies_of_its_targets() {
    let manifest: toml::Table = read("fuzz/Cargo.toml").parse().expect("TOML");
    let dependencies = manifest["dependencies"].as_table().expect("a table");
    let targets = read("tests/fuzz/targets.rs");
    let used = targets.lines().filter_map(|line| line.trim_start().strip_prefix("use "));
    let crates = used.filter_map(|path| path.split([':', ';', ' ']).next());
    for name in crates.filter(|name| *name != "std") {
        let package = name.replace('_', "-");
        assert!(dependencies.contains_key(&package), "{package} is missing in fuzz/Cargo.toml");
    }
}
