//! `[[user]]`: people of the console who are defined in the configuration.

use model::{AuthId, Role, Secret};

/// `[[user]]`: a person who signs in to the console.
#[derive(Clone, Debug)]
pub struct UserSettings {
    pub name: String,
    pub password: Secret,
    pub account: AuthId,
    pub role: Role,
}
