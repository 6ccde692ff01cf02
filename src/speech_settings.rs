//! `[speech]` of the configuration. The engine, which reads the rest, does not depend on speech.

use engine::config::Config;
use speech::config::SpeechConfig;

/// Reads `[speech]`, with the folder and the reserve of the disk that other sections set.
///
/// # Errors
/// Fails on unknown keys and invalid values. [`Config::load`] refuses them already.
pub fn read(config: &Config) -> Result<SpeechConfig, toml::de::Error> {
    Ok(SpeechConfig {
        data_dir: config.store.data_dir.clone(),
        disk_reserve: config.recordings.reserve,
        ..SpeechConfig::from_table(config.speech.clone())?
    })
}

/// Returns the valid settings of the whole configuration that are probably mistakes, with their
/// remedies.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config.warnings();
    warnings.extend(read(config).iter().flat_map(SpeechConfig::missing_programs));
    warnings
}
