//! How a call's sound got through, as its record keeps it.

use serde::{Deserialize, Serialize};

/// One way of a call's sound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SoundWay {
    /// Packets that were sent, as far as their receiver knows.
    pub packets: u64,
    /// Packets of those that did not come, in per cent.
    pub loss_percent: f64,
    /// RFC 3550's interarrival jitter at the end.
    pub jitter_ms: f64,
    /// The E-model's rating by loss and delay (ITU-T G.107), 0 to 93.2.
    pub r_factor: f64,
    /// The mean opinion score that goes with it, 1 to 4.5. An estimate: nobody was asked.
    pub mos: f64,
}

/// Both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CallQuality {
    /// The user's sound, as it came to the node.
    pub inbound: Option<SoundWay>,
    /// The node's, as the user's side reported.
    pub outbound: Option<SoundWay>,
    /// By the reports of the user's side; none where there were none.
    pub round_trip_ms: Option<f64>,
}
