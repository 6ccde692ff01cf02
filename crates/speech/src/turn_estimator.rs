//! Estimates with an installed model whether a caller who pauses has finished speaking. The model
//! runs in speech helpers of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use egress::FairPermits;
use tokio::sync::OnceCell;

use super::builtin::Builtin;
use super::config::SpeechConfig;
use super::helper::{ESTIMATE_TURN, EstimateRequest, TurnEstimate};
use super::language::primary;
use super::models::ModelStore;
use super::provider::{Owner, SpeechError};
use model::AuthId;

/// Length of the audio that counts, in samples at 16 kHz: 8 s.
pub const SAMPLES_MAX: usize = 8 * 16_000;
/// The languages that the model was trained with
/// (<https://www.daily.co/blog/announcing-smart-turn-v3-with-cpu-inference-in-just-12ms/>).
const LANGUAGES: &[&str] = &[
    "ar", "bn", "da", "de", "en", "es", "fi", "fr", "hi", "id", "it", "ja", "ko", "mr", "nb", "nl",
    "nn", "no", "pl", "pt", "ru", "tr", "uk", "vi", "zh",
];
/// Number of concurrent estimates. Each uses a helper with one thread.
const CONCURRENT_MAX: usize = 2;
/// Maximum time for which an estimate waits while the limit is reached. A later one would be
/// useless, because silence alone ends the speech after a second.
const WAIT_MAX: Duration = Duration::from_millis(600);
/// Time limit of an estimate, which takes about a tenth of a second.
const DEADLINE: Duration = Duration::from_secs(2);

/// The reason why there is no estimate.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    #[error("too many estimates are in progress")]
    Busy,
    #[error("there was no result within {0:?}")]
    Deadline(Duration),
    #[error(transparent)]
    Helper(#[from] SpeechError),
}

/// An installed model. Cheap to clone.
#[derive(Clone)]
pub struct TurnEstimator(Arc<Inner>);

struct Inner {
    helpers: Builtin,
    /// The folder and the name of the model.
    folder: PathBuf,
    name: String,
    permits: FairPermits<Owner>,
    wait_max: Duration,
    deadline: Duration,
    /// Set when the model has been loaded once.
    loaded: OnceCell<()>,
}

impl TurnEstimator {
    /// Returns the installed model, or `None` if there is none.
    pub fn find(config: &SpeechConfig) -> Option<Self> {
        let models = ModelStore::new(&config.data_dir);
        let model = models.turn_estimator()?;
        let helpers = Builtin::for_models(config, &models);
        Some(Self::new(helpers, models.folder_of(&model), model.name, WAIT_MAX, DEADLINE))
    }

    fn new(
        helpers: Builtin,
        folder: PathBuf,
        name: String,
        wait_max: Duration,
        deadline: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            helpers,
            folder,
            name,
            permits: FairPermits::new(CONCURRENT_MAX, CONCURRENT_MAX),
            wait_max,
            deadline,
            loaded: OnceCell::new(),
        }))
    }

    /// Returns the name of the model.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns `true` if the model was trained with the language of this BCP 47 tag.
    pub fn supports(&self, language: &str) -> bool {
        LANGUAGES.contains(&primary(language).as_ref())
    }

    /// Loads the model, unless that has been done, so that the first estimate is not late.
    pub async fn prepare(&self) {
        // A failure is reported by the first estimate.
        let load = || async { self.estimate(None, &[]).await.map(drop) };
        let _ = self.0.loaded.get_or_try_init(load).await;
    }

    /// Returns the probability that the speaker has finished, from 0 to 1. `pcm` is mono audio at
    /// 16 kHz that ends with the pause; the last [`SAMPLES_MAX`] samples count. Main accounts take
    /// turns.
    ///
    /// # Errors
    ///
    /// Fails if the estimate would be late, or if the helper or the model fails.
    pub async fn estimate(
        &self,
        account: Option<&AuthId>,
        pcm: &[i16],
    ) -> Result<f32, EstimateError> {
        let (inner, owner) = (&self.0, &account.cloned());
        let permit = tokio::time::timeout(inner.wait_max, inner.permits.acquire(owner)).await;
        let _permit = permit.map_err(|_| EstimateError::Busy)?;
        let pcm = pcm.get(pcm.len().saturating_sub(SAMPLES_MAX)..).unwrap_or_default();
        let request = EstimateRequest { folder: inner.folder.to_string_lossy().into_owned() };
        let ask =
            || inner.helpers.request_about::<TurnEstimate>(owner, pcm, ESTIMATE_TURN, &request);
        let estimate = async {
            match ask().await {
                // The helper was replaced. The next one may succeed.
                Err(SpeechError::Helper(_)) => ask().await,
                outcome => outcome,
            }
        };
        let estimate = tokio::time::timeout(inner.deadline, estimate)
            .await
            .map_err(|_| EstimateError::Deadline(inner.deadline))??;
        Ok(estimate.finished)
    }
}

#[cfg(test)]
mod tests;
