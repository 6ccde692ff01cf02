//! `GET /api/v1/calls/{call_uuid}/waterfall/`: a call as bars over time, with the messages sent and
//! received.

use std::fmt::Write as _;

use axum::response::Response;
use futures_util::StreamExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::error::ApiError;
use super::super::routes::{Operation, ResponseSpec};
use super::super::turns;
use super::request::{ApiRequest, NO_CALL};
use super::response::{Timestamp3339, ok};
use super::route::{Route, handler};
use engine::call::waterfall::{self, Waterfall};
use model::{AuthId, CallUuid, PromptVoice, Role};
use store::{Scope, StoreError};

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(get),
    operation: Operation::get(
        "/api/v1/calls/{call_uuid}/waterfall/",
        "callWaterfall",
        "Retrieve the waterfall of a call: how long each step took, and what was sent and received",
    )
    .responses(&[ResponseSpec::json::<CallWaterfall>(
        200,
        "The bars in the order in which they begin; empty if the event log is gone",
    )]),
}];

/// Number of lines per read from the store.
const LINES: u32 = 1_000;
/// Maximum size of an event log, in bytes, that is evaluated in the task of its request, which takes
/// about a millisecond. A larger one would delay other tasks, and is evaluated on a thread for
/// blocking work.
const SMALL_LOG_MAX: usize = 64 << 10;
/// Maximum number of bytes of an event log that are read.
const BYTES_MAX: usize = 8 << 20;

/// A call as bars over time. Times are microseconds since the webhook of the call had been read;
/// earlier ones are negative.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CallWaterfall {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    #[schema(value_type = Option<String>, format = DateTime)]
    started: Option<Timestamp3339>,
    answered_us: Option<i64>,
    ended_us: Option<i64>,
    cause: Option<&'static str>,
    bars: Vec<Bar>,
    /// The voices of the prompts. An event log of an earlier version names none.
    voices: Vec<Voice>,
    /// The recognisers of the caller's speech.
    recognisers: Vec<RecogniserUse>,
    /// The number of bars that are omitted beyond the limit.
    left_out: usize,
}

/// A voice that spoke prompts of the call.
#[derive(Serialize, ToSchema)]
#[schema(as = CallVoice)]
struct Voice {
    #[serde(flatten)]
    voice: PromptVoice,
    /// The number of playlists in which it spoke.
    playlists: u32,
}

/// A recogniser of the caller's speech.
#[derive(Serialize, ToSchema)]
#[schema(as = CallRecogniser)]
struct RecogniserUse {
    /// `transcribe`, `websocket`, `whisper` or `pocketsphinx`.
    recogniser: String,
    /// A BCP 47 tag.
    language: String,
    /// The number of utterances that it recognised.
    utterances: u32,
}

/// A span of time, or a moment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallWaterfallBar)]
struct Bar {
    name: String,
    /// Party that caused the span: `node`, `graph`, `customer`, `media`, `instruction`, `person`.
    who: &'static str,
    from_us: i64,
    /// The end. Null if the span never ended.
    to_us: Option<i64>,
    /// The result of the span.
    note: String,
    failed: bool,
    /// For a part of a bar, the name of that bar, which precedes this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bodies: Vec<Body>,
}

/// A message that was sent or received, without tokens, signatures and passwords.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallWaterfallBody)]
struct Body {
    /// `sent` or `received`.
    way: &'static str,
    /// The request line, or the status of the response.
    head: String,
    /// `json`, `form` (one field per line), `xml`, `sdp`, or `none`.
    kind: &'static str,
    /// The text, at most 4 KiB.
    text: String,
    /// The size in bytes before the text was cut. Null if it was not cut.
    cut_of: Option<usize>,
    /// `whole`, `rebuilt` (from the event log) or `not_kept`.
    kept: &'static str,
}

impl Body {
    fn of(body: waterfall::Body) -> Self {
        let waterfall::Body { way, head, kind, text, cut_of, kept } = body;
        Self { way: way.as_str(), head, kind: kind.as_str(), text, cut_of, kept: kept.as_str() }
    }
}

impl Bar {
    fn of(bar: waterfall::Bar, within: Option<&str>) -> Vec<Self> {
        let waterfall::Bar { what, name, from_us, to_us, note, failed, span: _, parts, bodies } =
            bar;
        let parts: Vec<Self> =
            parts.into_iter().flat_map(|part| Self::of(part, Some(&name))).collect();
        let bodies = bodies.into_iter().map(Body::of).collect();
        let of = within.map(str::to_owned);
        let whole = Self { name, who: what.as_str(), from_us, to_us, note, failed, of, bodies };
        std::iter::once(whole).chain(parts).collect()
    }
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let call_uuid: CallUuid = request.id("call_uuid", NO_CALL)?;
    if api.live.get(scope, call_uuid).is_none() {
        api.store.flush().await;
        let record = api.store.calls().get(scope, call_uuid).await;
        record.map_err(ApiError::store("read a call"))?.ok_or(ApiError::NotFound(NO_CALL))?;
    }
    let view = move |_: &str, waterfall| ok(&CallWaterfall::of(call_uuid, waterfall));
    let response = evaluate_log(api, (scope, &request.main_account()), call_uuid, view).await;
    response.map_err(ApiError::store("read an event log"))
}

impl CallWaterfall {
    fn of(call_uuid: CallUuid, waterfall: Option<Waterfall>) -> Self {
        let mut view = Self {
            call_uuid,
            started: None,
            answered_us: None,
            ended_us: None,
            cause: None,
            bars: Vec::new(),
            voices: Vec::new(),
            recognisers: Vec::new(),
            left_out: 0,
        };
        let Some(waterfall) = waterfall else { return view };
        view.started = waterfall.started.map(Timestamp3339);
        view.answered_us = waterfall.answered_us;
        view.ended_us = waterfall.ended_us;
        view.cause = waterfall.cause;
        view.bars = waterfall.bars.into_iter().flat_map(|bar| Bar::of(bar, None)).collect();
        let voices = waterfall.voices.into_iter();
        view.voices = voices.map(|(voice, playlists)| Voice { voice, playlists }).collect();
        let recognisers = waterfall.recognisers.into_iter();
        view.recognisers = recognisers
            .map(|(used, utterances)| RecogniserUse {
                recogniser: used.recogniser,
                language: used.language,
                utterances,
            })
            .collect();
        view.left_out = waterfall.left_out;
        view
    }
}

/// Reads the event log of a call, and passes it to `evaluate` with its waterfall, which has the
/// bodies of the call's callbacks and is `None` if the log is empty or can't be read. Requests of one
/// main account do so one after another.
///
/// # Errors
/// Fails if the store can't read the log or the callbacks.
pub(crate) async fn evaluate_log<T: Send + 'static>(
    api: &Api,
    (scope, main_account): (&Scope, &AuthId),
    call: CallUuid,
    evaluate: impl FnOnce(&str, Option<Waterfall>) -> T + Send + 'static,
) -> Result<T, StoreError> {
    let _turn = turns::next(main_account).await;
    let log = event_log(api, scope, call).await?;
    let outbox = api.store.outbox().of_call(scope, call).await?;
    let is_small = log.len() < SMALL_LOG_MAX;
    let evaluate = move || {
        let waterfall = Waterfall::with(log.as_bytes(), &outbox).ok();
        evaluate(&log, waterfall)
    };
    if is_small {
        return Ok(evaluate());
    }
    // Fails only after a panic, or while the process ends.
    tokio::task::spawn_blocking(evaluate).await.map_err(|_| StoreError::Closed)
}

/// The event log of a live or ended call, cut after 8 MiB; empty if the call has none.
///
/// # Errors
/// Fails if the store can't read the log.
async fn event_log(api: &Api, scope: &Scope, call: CallUuid) -> Result<String, StoreError> {
    let mut text = String::new();
    if let Some(mut lines) = api.live.events(scope, call, false) {
        while let Some(line) = lines.next().await {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        return Ok(text);
    }
    let mut after = None;
    while text.len() < BYTES_MAX {
        let lines = api.store.calls().events(scope, call, after, LINES).await?;
        let Some((last, _)) = lines.last() else { break };
        after = Some(*last);
        for (_, line) in &lines {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    Ok(text)
}

/// Returns the event log of a call. Requests of one main account read theirs one after another.
///
/// # Errors
/// Fails if the store can't read the log.
pub(crate) async fn read_log(
    api: &Api,
    (scope, main_account): (&Scope, &AuthId),
    call: CallUuid,
) -> Result<String, StoreError> {
    let _turn = turns::next(main_account).await;
    event_log(api, scope, call).await
}
