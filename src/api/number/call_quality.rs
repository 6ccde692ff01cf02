//! `GET /api/v1/calls/{call_uuid}/quality/`: the audio quality of a call over time. That of a live
//! call comes from memory, that of an ended call from its event log.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::routes::{Operation, ResponseSpec};
use super::super::turns;
use super::request::{ApiRequest, NO_CALL};
use super::response::{Timestamp3339, ok};
use super::route::{Route, handler};
use engine::call::course::{Course, Moment};
use engine::call::trace::course_of_line;
use model::{CallUuid, DirectionQuality, Role, Timestamp};
use store::{Scope, Store, StoreError};

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(get),
    operation: Operation::get(
        "/api/v1/calls/{call_uuid}/quality/",
        "callQuality",
        "Retrieve the audio quality of a call over time: loss, jitter, round trip, estimated MOS",
    )
    .responses(&[ResponseSpec::json::<CallQualityCourse>(
        200,
        "The samples, oldest first; empty if nothing was measured or the event log is gone",
    )]),
}];

/// Number of lines per read from the store.
const PAGE: u32 = 1_000;

/// The audio quality of a call over time.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CallQualityCourse {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    /// The minimum span of a sample except the last, in seconds: 5, and doubled each time the call
    /// has 240 samples.
    interval_seconds: u32,
    samples: Vec<Sample>,
}

/// The quality within one span of the call.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallQualitySample)]
struct Sample {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp3339,
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp3339,
    /// The quality of the user's audio, measured by the node.
    inbound: Option<DirectionQuality>,
    /// The quality of the node's audio, reported by the user's device. Null if it sent no report.
    outbound: Option<DirectionQuality>,
    /// The latest round-trip time at the end of the span.
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

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let call_uuid: CallUuid = request.id("call_uuid", NO_CALL)?;
    let (started, course) = match api.live.get(scope, call_uuid) {
        Some(live) => (live.started, api.live.course(scope, call_uuid)),
        None => {
            // The last lines of a call that has just ended may still be on their way to the store.
            api.store.flush().await;
            let record = api.store.calls().get(scope, call_uuid).await;
            let record = record.map_err(ApiError::store("read a call"))?;
            let record = record.ok_or(ApiError::NotFound(NO_CALL))?;
            let turn = turns::next(&request.main_account()).await;
            let course = stored(&api.store, scope, call_uuid).await;
            drop(turn);
            (record.start.started, course.map_err(ApiError::store("read an event log"))?)
        }
    };
    let course = course.unwrap_or_default();
    let samples = course.moments().map(|moment| Sample::of(&moment, started)).collect();
    let interval_seconds = course.every_ms / 1_000;
    Ok(ok(&CallQualityCourse { call_uuid, interval_seconds, samples }))
}

/// The quality line of a call's event log.
async fn stored(
    store: &Store,
    scope: &Scope,
    call: CallUuid,
) -> Result<Option<Course>, StoreError> {
    let mut after = None;
    loop {
        let lines = store.calls().events(scope, call, after, PAGE).await?;
        let found = lines.iter().find_map(|(_, line)| course_of_line(line));
        match lines.last() {
            Some((last, _)) if found.is_none() => after = Some(*last),
            _ => return Ok(found),
        }
    }
}
