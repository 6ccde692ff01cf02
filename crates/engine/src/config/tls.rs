//! `[tls]`: the certificates of `listen.https`.

use std::path::PathBuf;

use url::{Host, Url};

use super::fault::Place;
use super::forms::{Form, Invalid, absolute_url, is_confidential, list, text, text_if};
use super::section::{Context, Section};
use super::types::{Listen, Public};
use tls::{AcmeSettings, CertificateFiles, TlsSettings};

/// Maximum number of names in a certificate from Let's Encrypt.
const DOMAINS_MAX: usize = 100;

const SOURCES_HINT: &str = "in [tls], set `domains` = [\"calls.example.com\"] for a certificate of \
                            Let's Encrypt, or `cert` and `key` for files";

/// Reads `[tls]`. Sets `public.base_url` to the first of `domains` if the file has none.
pub(super) fn read(
    section: Option<Section<'_>>,
    cx: &Context<'_>,
    (listen, https): (&Listen, Option<Place>),
    public: &mut Public,
) -> Option<TlsSettings> {
    let at = section.as_ref().map(|section| section.at.clone());
    let settings = section.and_then(|section| settings(section, cx, public));
    match (https, at) {
        // Faults within the section have been reported.
        (Some(https), None) => cx.fault(https, "`https` needs a certificate", SOURCES_HINT),
        (None, Some(at)) if listen.https.is_none() => {
            let hint = "set [listen] https = \"0.0.0.0:443\", or remove [tls]";
            cx.fault(at, "[tls] has no meaning without `https` in [listen]", hint);
        }
        _ => {}
    }
    settings
}

fn settings(mut s: Section<'_>, cx: &Context<'_>, public: &mut Public) -> Option<TlsSettings> {
    let at = s.at.clone();
    let has_domains = s.has("domains");
    let domains = s
        .key(
            "domains",
            list("host names", domain()),
            "Host names of this node, for which it gets a certificate by itself (ACME). Port 443 \
             or 80 of each name must reach the node. The first is the default of \
             `public.base_url`.",
        )
        .absent("`cert` and `key`")
        .placed();
    // Faults of `domains` have been reported; others may only follow from them.
    let is_faulty = has_domains && domains.is_none();
    let domains = domains.filter(|(domains, _)| !domains.is_empty());
    let email = s
        .key("email", email(), "Where the certificate authority writes about the account.")
        .placed();
    let d = AcmeSettings::lets_encrypt();
    let directory = s
        .key("acme_directory", directory(), "The ACME directory of the certificate authority.")
        .default(&d)
        .placed();
    let ca = s
        .key(
            "acme_ca",
            text(),
            "A PEM file with further root certificates for connections to `acme_directory`.",
        )
        .absent("the system's and Mozilla's root certificates alone")
        .placed()
        .filter(|(ca, _)| !ca.is_empty());
    let cert = s
        .key(
            "cert",
            text(),
            "A PEM file with a certificate and those of intermediate authorities. It is read again \
             when it changes.",
        )
        .placed()
        .filter(|(cert, _)| !cert.is_empty());
    let key = s
        .key("key", text(), "A PEM file with the private key of `cert`.")
        .placed()
        .filter(|(key, _)| !key.is_empty());
    let doc = "A further certificate from files, for other host names. A client that names no \
               known host gets the first one.";
    let further = s.sections("certificate", doc);
    s.finish();
    let files_at = cert.as_ref().or(key.as_ref()).map(|(_, at)| at.clone());
    let files_at = files_at.or_else(|| further.first().map(|section| section.at.clone()));
    let first = match (cert, key) {
        (Some((cert, _)), Some((key, _))) => Some(files(cert, key)),
        (Some((_, at)), None) => {
            cx.fault(at, "`cert` needs `key`", "set `key` to the file of its private key");
            None
        }
        (None, Some((_, at))) => {
            cx.fault(at, "`key` needs `cert`", "set `cert` to the file of its certificate");
            None
        }
        (None, None) => None,
    };
    let certificates: Vec<_> =
        first.into_iter().chain(further.into_iter().filter_map(certificate)).collect();
    let Some((domains, domains_at)) = domains else {
        if is_faulty {
            return None;
        }
        let of_acme = [
            ("email", email.map(|(_, at)| at)),
            ("acme_directory", directory.map(|(_, at)| at)),
            ("acme_ca", ca.map(|(_, at)| at)),
        ];
        for (name, at) in of_acme {
            let hint = "set `domains` to the host names of this node, or remove it";
            let message = format!("`{name}` has no meaning without `domains`");
            at.into_iter().for_each(|at| cx.fault(at, message.as_str(), hint));
        }
        if files_at.is_none() {
            cx.fault(at, "[tls] names no certificate", SOURCES_HINT);
        }
        return (!certificates.is_empty()).then_some(TlsSettings::Files(certificates));
    };
    if files_at.is_some() {
        let hint = "remove one: with `domains`, the node gets certificates by itself";
        cx.fault(domains_at.clone(), "`domains` and certificate files are both set", hint);
    }
    check_base_url(&domains, &domains_at, public, cx);
    Some(TlsSettings::Acme(AcmeSettings {
        domains,
        email: email.map(|(email, _)| email),
        directory: directory.map_or(d, |(url, _)| url),
        ca: ca.map(|(ca, _)| PathBuf::from(ca)),
    }))
}

fn certificate(mut s: Section<'_>) -> Option<CertificateFiles> {
    let cert = s
        .key("cert", text(), "As `tls.cert`.")
        .required("the file of the certificate and those of intermediate authorities");
    let key = s.key("key", text(), "As `tls.key`.").required("the file of its private key");
    s.finish();
    Some(files(cert?.0, key?.0))
}

fn files(cert: String, key: String) -> CertificateFiles {
    CertificateFiles { cert: cert.into(), key: key.into() }
}

/// Checks that the certificate will be valid for the public URL.
fn check_base_url(domains: &[String], at: &Place, public: &mut Public, cx: &Context<'_>) {
    if domains.len() > DOMAINS_MAX {
        let message = format!("`domains` has more than {DOMAINS_MAX} names");
        cx.fault(at.clone(), message, "certificate authorities take no more in one certificate");
    }
    let Some(base) = &public.base_url else {
        public.base_url =
            domains.first().and_then(|first| Url::parse(&format!("https://{first}")).ok());
        return;
    };
    let host = base.host_str().unwrap_or_default();
    if !domains.iter().any(|domain| domain == host) {
        let message = format!("the host of `public.base_url`, {host}, is not one of `domains`");
        cx.fault(at.clone(), message, "add it, or correct `base_url`");
    }
}

/// A host name that a certificate authority can validate, in lower case.
fn domain() -> Form<'static, String> {
    let fits = |name: &str| {
        let parsed = Host::parse(name.trim());
        matches!(parsed, Ok(Host::Domain(domain)) if !domain.contains('*') && !domain.ends_with('.'))
            && name.len() <= 253
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
    };
    let form = text_if("host name", fits, |name| {
        let hint = match name.starts_with("*.") {
            true => "list each name: a certificate for all subdomains needs files",
            false => "write a host name like \"calls.example.com\", without scheme and port",
        };
        Invalid::new(format!("has \"{name}\", which is not a host name"), hint)
    });
    Form::new(
        "host name",
        move |node| form.read(node).map(|name| name.to_ascii_lowercase()),
        |name| format!("\"{name}\""),
    )
}

fn email() -> Form<'static, String> {
    let fits = |address: &str| {
        let parts = address.split_once('@');
        parts.is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
            && address.len() <= 254
            && address.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'?' | b'&'))
    };
    text_if("mail address", fits, |_| {
        Invalid::new("is not an email address", "write it like \"ops@example.com\"")
    })
}

fn directory() -> Form<'static, Url> {
    let read = |node: &_| {
        let (_, url) = absolute_url(node)?;
        match is_confidential(&url) {
            true => Ok(url),
            false => Err(Invalid::new("is http", "use https")),
        }
    };
    Form::new("URL", read, |url: &Url| format!("\"{url}\""))
}
