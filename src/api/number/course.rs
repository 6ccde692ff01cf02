//! `GET /api/v1/calls/{call_uuid}/quality/`: how a call's sound went, stretch by stretch. A live call's comes from memory,
//! an ended one's from its event log.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Content, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use crate::call::course::{Course, Moment};
use model::{CallUuid, DirectionQuality, Timestamp};
use store::{Scope, Store, StoreError};

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/api/v1/calls/{call_uuid}/quality/",
    id: "callQuality",
    summary: "How a call's sound went: loss, jitter, round trip and the estimate, some seconds at a time",
    query: &[],
    body: None,
    answers: &[Answer {
        status: 200,
        what: "Its samples, oldest first; none where nothing was measured, or its event log is gone",
        content: Content::Json(of::<Shown>),
    }],
}];

/// Lines read from the store at once.
const PAGE: u32 = 1_000;

/// A call's sound over time.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallQualityCourse)]
pub(super) struct Shown {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    /// What a sample spans at least, the last one aside: 5, and twice as much each time a call has had 240 of them.
    interval_seconds: u32,
    samples: Vec<Sample>,
}

/// One stretch of it: what was measured then, and not of the call so far.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallQualitySample)]
struct Sample {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp3339,
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp3339,
    /// The user's sound, as it came to the node.
    inbound: Option<DirectionQuality>,
    /// The node's, as the user's side reported; none: it did not.
    outbound: Option<DirectionQuality>,
    /// The latest by then.
    round_trip_ms: Option<f64>,
}

impl Sample {
    fn of(moment: &Moment, started: Timestamp) -> Self {
        let at = |ms: u32| Timestamp3339(started.plus(std::time::Duration::from_millis(ms.into())));
        Self {
            from: at(moment.from_ms),
            until: at(moment.until_ms),
            inbound: moment.quality.and_then(|quality| quality.inbound),
            outbound: moment.quality.and_then(|quality| quality.outbound),
            round_trip_ms: moment.quality.and_then(|quality| quality.round_trip_ms),
        }
    }
}

pub(super) async fn get(asked: &Asked, uuid: &str) -> Result<Response, Fault> {
    const NONE: &str = "there is no such call";
    let (api, scope) = (asked.api(), asked.scope());
    let call_uuid = uuid.parse::<CallUuid>().map_err(|_| ask::missing(NONE))?;
    let (started, course) = match api.live.get(scope, call_uuid) {
        Some(live) => (live.started, api.live.course(scope, call_uuid)),
        None => {
            // A call that just ended: its last lines may still be on their way.
            api.store.flush().await;
            let record =
                api.store.calls().get(scope, call_uuid).await.map_err(ask::store("read a call"))?;
            let record = record.ok_or_else(|| ask::missing(NONE))?;
            let course = stored(&api.store, scope, call_uuid)
                .await
                .map_err(ask::store("read an event log"))?;
            (record.start.started, course)
        }
    };
    let course = course.unwrap_or_default();
    let samples = course.moments().map(|moment| Sample::of(&moment, started)).collect();
    Ok(ask::ok(&Shown { call_uuid, interval_seconds: course.every_ms / 1_000, samples }))
}

/// The one in its event log.
async fn stored(
    store: &Store,
    scope: &Scope,
    call: CallUuid,
) -> Result<Option<Course>, StoreError> {
    let mut after = None;
    loop {
        let lines = store.calls().events(scope, call, after, PAGE).await?;
        let found = lines.iter().find_map(|(_, line)| Course::of_line(line));
        match lines.last() {
            Some((last, _)) if found.is_none() => after = Some(*last),
            _ => return Ok(found),
        }
    }
}
