//! The page of speech models and voices, for the operator of the node. It lists the installed models
//! and the known ones with what they improve, and plays samples of voices. Scripts of the page upload
//! files and request samples over the number API (`models`, `voices`).

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{SubmittedForm, Visitor};
use super::i18n::Lang;
use super::page::{Page, bad_query, failed, forbidden, object, respond};
use super::view::When;
use super::{App, Console};
use crate::api::{ApiResponse, SAMPLE_CHARS_MAX};
use speech::models::{FILE_BYTES_MAX, KNOWN, KnownModel, ListedModel, ModelKind};

/// Sentences that a voice speaks by default, by language.
const SAMPLES: &[(&str, &str)] = &[
    ("de", "Guten Tag, und danke für Ihren Anruf. Ihre Bestellung kommt am Freitag um halb elf."),
    (
        "en",
        "Hello, and thank you for calling. Your order A-4711 arrives on Friday at half past ten.",
    ),
    ("es", "Hola, gracias por su llamada. Su pedido llega el viernes a las diez y media."),
    (
        "fr",
        "Bonjour, et merci de votre appel. Votre commande arrive vendredi à dix heures et demie.",
    ),
    ("hi", "नमस्ते, कॉल करने के लिए धन्यवाद। आपका ऑर्डर शुक्रवार को आएगा।"),
    ("it", "Buongiorno e grazie della chiamata. Il suo ordine arriva venerdì alle dieci e mezza."),
    ("nl", "Goedendag, en bedankt voor het bellen. Uw bestelling komt vrijdag om half elf."),
    ("pt", "Olá, obrigado pela sua ligação. Seu pedido chega na sexta-feira às dez e meia."),
];

/// The models in the number API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Models {
    node: String,
    items: Vec<ListedModel>,
    uploaded: Option<ListedModel>,
    download: Option<Download>,
    can_download: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Download {
    name: String,
    bytes_received: u64,
    bytes: u64,
    problem: Option<String>,
}

/// A voice in the number API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Voice {
    voice: String,
    language: String,
    gender: String,
    engine: String,
    engine_voice: String,
    exact: bool,
}

#[derive(Deserialize)]
struct SpokenLanguage {
    language: String,
}

#[derive(Deserialize)]
struct Voices {
    languages: Vec<SpokenLanguage>,
    voices: Vec<Voice>,
}

struct ModelView {
    name: String,
    version: String,
    licence: String,
    size: String,
    sha256: String,
    /// The first digits of the hash.
    short_hash: String,
    since: Option<When>,
    problem: String,
    /// The last part of the text keys for its kind.
    kind: &'static str,
    /// Whether this version of Offhook knows the file.
    is_known: bool,
    /// The commands that download it. Empty if it is not a known model.
    command: String,
    /// Whether the node can download it.
    can_fetch: bool,
    file: &'static str,
    download: Option<DownloadView>,
}

struct DownloadView {
    percent: u64,
    progress: String,
    problem: String,
}

#[derive(Template)]
#[template(path = "speech.html")]
struct SpeechPage {
    page: Page,
    wrong: String,
    node: String,
    installed: Vec<ModelView>,
    available: Vec<ModelView>,
    uploaded: Option<ModelView>,
    can_download: bool,
    /// Whether a download is in progress.
    is_downloading: bool,
    file_mib_max: u64,
    /// The languages without region.
    languages: BTreeSet<String>,
    language: String,
    voices: Vec<Voice>,
    sample: &'static str,
    sample_chars_max: usize,
}

fn size(lang: Lang, bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000) / 100_000;
    format!("{} MB", lang.decimals(format!("{}.{}", tenths / 10, tenths % 10)))
}

fn kind(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::EnglishVoice => "english_voice",
        ModelKind::MultilingualVoice => "multilingual_voice",
        ModelKind::EnglishRecogniser => "english_recogniser",
        ModelKind::TurnEstimator => "turn_estimator",
        ModelKind::File => "file",
    }
}

/// Returns the commands that make the file of a known model.
fn commands(known: &KnownModel) -> String {
    let parts: Vec<&str> = known.parts.iter().map(|part| part.file).collect();
    match parts.as_slice() {
        [] => known.download.to_owned(),
        parts => format!("{} && zip -0 {} {}", known.download, known.file, parts.join(" ")),
    }
}

fn model_view(lang: Lang, model: ListedModel, download: Option<&Download>) -> ModelView {
    let known = KNOWN.iter().find(|known| known.sha256 == model.sha256);
    let download = download.filter(|download| download.name == model.name);
    ModelView {
        size: size(lang, model.bytes),
        short_hash: model.sha256.chars().take(12).collect(),
        since: model.installed_at.as_deref().map(When::read),
        problem: model.problem.unwrap_or_default(),
        kind: kind(model.kind),
        // The parts of an archive have been verified.
        is_known: known.is_some() || model.kind == ModelKind::MultilingualVoice,
        command: known.map(commands).unwrap_or_default(),
        can_fetch: known.is_some_and(|known| known.parts.is_empty()),
        file: known.map_or("", |known| known.file),
        download: download.map(|download| DownloadView {
            percent: download.bytes_received.saturating_mul(100) / download.bytes.max(1),
            progress: lang.with(
                "speech.received",
                &[&size(lang, download.bytes_received), &size(lang, download.bytes)],
            ),
            problem: download.problem.clone().unwrap_or_default(),
        }),
        name: model.name,
        version: model.version,
        licence: model.licence,
        sha256: model.sha256,
    }
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[&["language"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    render_page(&console, &visitor, StatusCode::OK, String::new()).await
}

async fn render_page(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    wrong: String,
) -> Response {
    if !visitor.is_owner() {
        return forbidden(console, visitor);
    }
    let lang = visitor.lang();
    let answer = visitor.ask(console, Method::GET, "/api/v1/models/", None).await;
    if answer.status == StatusCode::FORBIDDEN {
        return failed(console, visitor, answer.status, answer.message());
    }
    let models: Models = match object(console, visitor, &answer) {
        Ok(models) => models,
        Err(response) => return *response,
    };
    let answer = visitor.ask(console, Method::GET, "/api/v1/voices/", None).await;
    let voices: Voices = match object(console, visitor, &answer) {
        Ok(voices) => voices,
        Err(response) => return *response,
    };
    let primary = |tag: &str| tag.split('-').next().unwrap_or_default().to_owned();
    let languages = voices.languages.iter().map(|spoken| primary(&spoken.language)).collect();
    let asked = visitor.query.some("language").unwrap_or(lang.tag());
    let language = primary(asked).to_ascii_lowercase();
    let Models { node, items, uploaded, download, can_download } = models;
    let view = |model| model_view(lang, model, download.as_ref());
    let is_downloading = download.as_ref().is_some_and(|download| download.problem.is_none());
    let (installed, available): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|model| model.installed);
    let page = SpeechPage {
        page: visitor.page(console, lang.t("nav.speech"), "speech"),
        wrong,
        node,
        installed: installed.into_iter().map(view).collect(),
        available: available.into_iter().map(view).collect(),
        uploaded: uploaded.map(|model| model_view(lang, model, None)),
        can_download,
        is_downloading,
        file_mib_max: FILE_BYTES_MAX >> 20,
        languages,
        voices: voices
            .voices
            .into_iter()
            .filter(|voice| primary(&voice.language) == language)
            .collect(),
        sample: SAMPLES.iter().find(|(tag, _)| *tag == language).map_or("", |(_, text)| text),
        sample_chars_max: SAMPLE_CHARS_MAX,
        language,
    };
    respond(status, &page)
}

/// Installs the uploaded file, or starts a download.
pub(super) async fn install(
    State(console): App,
    Path(name): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let Some(licence) = form.some("licence") else {
        let wrong = visitor.lang().t("speech.accept_first").to_owned();
        return render_page(&console, &visitor, StatusCode::BAD_REQUEST, wrong).await;
    };
    let body = json!({"licence": licence, "sha256": form.some("sha256")});
    act(&console, &visitor, (Method::POST, &name, "install/"), Some(&body)).await
}

/// Deletes the uploaded file.
pub(super) async fn discard(
    State(console): App,
    Path(name): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    act(&console, &submitted.visitor, (Method::POST, &name, "discard/"), None).await
}

/// Removes an installed model.
pub(super) async fn remove(
    State(console): App,
    Path(name): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    act(&console, &submitted.visitor, (Method::DELETE, &name, ""), None).await
}

/// Sends a request about a model, and shows the page again.
async fn act(
    console: &Console,
    visitor: &Visitor,
    (method, name, action): (Method, &str, &str),
    body: Option<&Value>,
) -> Response {
    let name = url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>();
    let path = format!("/api/v1/models/{name}/{action}");
    let answer: ApiResponse = visitor.ask(console, method, &path, body).await;
    match answer.is_ok() {
        true => Redirect::to("/console/speech/").into_response(),
        false => {
            let wrong = visitor.lang().refusal(&answer);
            render_page(console, visitor, answer.status, wrong).await
        }
    }
}
