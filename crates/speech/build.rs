//! Finds the voice files of the embedded synthesiser inside the `ttspico-sys` crate and writes the
//! list that `voices.rs` includes. Needs no network and copies nothing into this repository.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The crate that contains Pico's sources and voices.
const CRATE: &str = "ttspico-sys";
/// The folder of the voices inside that crate.
const FOLDER: &str = "build/pico/lang";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", lock_file()?.display());
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let folder = voices_folder(&out)?;
    let mut files = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "bin"));
    files.sort();

    let mut list = String::from("&[\n");
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name =
            file.file_name().and_then(|n| n.to_str()).ok_or("a voice file's name is not UTF-8")?;
        writeln!(
            list,
            "    ({name:?}, include_bytes!({:?}) as &[u8]),",
            file.display().to_string()
        )?;
    }
    list.push_str("]\n");
    fs::write(out.join("voices.rs"), list)?;
    Ok(())
}

/// Returns the folder of the voices. Runs `cargo metadata` for a temporary package that depends
/// only on [`CRATE`]: resolving this workspace instead would need development dependencies and
/// crates of other platforms, which a plain build never downloads.
fn voices_folder(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let question = out.join("where-are-the-voices");
    fs::create_dir_all(question.join("src"))?;
    fs::write(question.join("src/lib.rs"), "")?;
    fs::write(
        question.join("Cargo.toml"),
        format!(
            "[package]\nname = \"question\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [dependencies]\n{CRATE} = \"*\"\n\n[workspace]\n"
        ),
    )?;
    fs::copy(lock_file()?, question.join("Cargo.lock"))?;

    let answer = Command::new(env::var("CARGO")?)
        .args([
            "metadata",
            "--offline",
            "--format-version",
            "1",
            "--filter-platform",
            &env::var("HOST")?,
        ])
        .current_dir(&question)
        .output()?;
    if !answer.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&answer.stderr)).into());
    }
    let answer = String::from_utf8(answer.stdout)?;
    answer
        .split("\"manifest_path\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter_map(|manifest| Path::new(manifest).parent())
        .map(|package| package.join(FOLDER))
        .find(|folder| folder.is_dir())
        .ok_or_else(|| format!("{CRATE} has no {FOLDER}").into())
}

/// Returns the path of the workspace's `Cargo.lock`.
fn lock_file() -> Result<PathBuf, Box<dyn Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let lock =
        package.ancestors().map(|folder| folder.join("Cargo.lock")).find(|file| file.is_file());
    Ok(lock.ok_or("no Cargo.lock at or above the package")?)
}
