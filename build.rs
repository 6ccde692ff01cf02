//! Compresses the files of the console, and derives their URL from their content.

use std::error::Error;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=console/assets");
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("console/assets");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    let mut digest = DefaultHasher::new();
    let mut table = String::new();
    for file in files {
        let name =
            file.file_name().and_then(|name| name.to_str()).ok_or("a name that is not UTF-8")?;
        let content = std::fs::read(&file)?;
        digest.write(name.as_bytes());
        digest.write(&content);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&content)?;
        let gzip = out.join(format!("{name}.gz"));
        std::fs::write(&gzip, encoder.finish()?)?;
        std::fs::write(out.join(name), content)?;
        // Without absolute paths: checkouts may share a target directory, which may be moved.
        let included = |name: &str| {
            let path = format!("/{name}");
            format!("include_bytes!(concat!(env!(\"OUT_DIR\"), {path:?}))")
        };
        let (plain, gzip) = (included(name), included(&format!("{name}.gz")));
        writeln!(table, "Asset {{ name: {name:?}, content: {plain}, gzip: {gzip} }},")?;
    }
    let digest = digest.finish();
    std::fs::write(
        out.join("assets.rs"),
        format!(
            "/// The folder of the files in URLs. It names their content.\n\
             pub(super) const PATH: &str = \"/console/assets/{digest:016x}\";\n\
             const DIGEST: &str = \"{digest:016x}\";\n\
             const ASSETS: &[Asset] = &[\n{table}];\n"
        ),
    )?;
    Ok(())
}
