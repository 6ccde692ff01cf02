//! Certificates and private keys in PEM files.

use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Certificate;
use crate::settings::CertificateFiles;

/// Maximum size of a file in bytes. A chain has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("could not read {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no private key in PEM form", .0.display())]
    NoKey(PathBuf),
    #[error("the certificate in {} and the key in {} can't be used: {source}", cert.display(), key.display())]
    Unusable {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// Loads certificates, either all or none. Blocks on the file system.
///
/// # Errors
/// Returns an error if a file can't be read, or if a key does not belong to its certificate.
pub(crate) fn load(files: &[CertificateFiles]) -> Result<Vec<Certificate>, LoadError> {
    files.iter().map(load_one).collect()
}

fn load_one(CertificateFiles { cert, key }: &CertificateFiles) -> Result<Certificate, LoadError> {
    let chain = read_chain(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?);
    let private = private.map_err(|_| LoadError::NoKey(key.clone()))?;
    Certificate::new(chain, private).map_err(|source| LoadError::Unusable {
        cert: cert.clone(),
        key: key.clone(),
        source,
    })
}

/// Reads the certificates of a file. Blocks on the file system.
///
/// # Errors
/// Returns an error if the file can't be read or has no certificate.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.unwrap_or_default();
    if chain.is_empty() { Err(LoadError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut content = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut content));
    read.map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    Ok(content)
}

/// Returns values that differ between versions of the files. An entry is `None` if its file can't
/// be read. Blocks on the file system.
pub(crate) fn versions(files: &[CertificateFiles]) -> Vec<Option<(u64, u64, i64, i64)>> {
    let version = |about: Metadata| (about.ino(), about.size(), about.mtime(), about.mtime_nsec());
    let paths = files.iter().flat_map(|files| [&files.cert, &files.key]);
    paths.map(|path| std::fs::metadata(path).ok().map(version)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a self-signed certificate for some names, and its key.
    pub(crate) fn write(folder: &Path, stem: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let [cert, key] = ["pem", "key"].map(|end| folder.join(format!("{stem}.{end}")));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        CertificateFiles { cert, key }
    }

    #[test]
    fn a_pair_of_files_loads_and_each_fault_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|stem| write(folder.path(), stem, &["a.example"]));
        let loaded = load(&[one.clone(), two.clone()]).unwrap();
        assert_eq!(loaded.len(), 2);
        let fault = |cert: &Path, key: &Path| {
            let files = CertificateFiles { cert: cert.to_owned(), key: key.to_owned() };
            load(&[files]).err().unwrap().to_string()
        };
        assert!(fault(&one.cert, &two.key).contains("two.key can't be used"));
        assert!(fault(&one.key, &one.key).contains("one.key holds no certificate"));
        assert!(fault(&one.cert, &one.cert).contains("one.pem holds no private key"));
        assert!(fault(&folder.path().join("none"), &one.key).contains("could not read"));
        let before = versions(std::slice::from_ref(&one));
        assert_eq!(before, versions(std::slice::from_ref(&one)));
        std::fs::write(&one.key, "").unwrap();
        assert_ne!(before, versions(&[one]));
    }
}
