use model::Secret;

/// The type of resource that a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingKind {
    Account,
    Application,
    Waba,
    Number,
}

impl SettingKind {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Application => "application",
            Self::Waba => "waba",
            Self::Number => "number",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Account, Self::Application, Self::Waba, Self::Number]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// A stored setting.
#[derive(Clone, Debug)]
pub struct Setting {
    pub kind: SettingKind,
    pub id: String,
    /// JSON, as `admission::book` reads it.
    pub body: String,
    pub secret: Option<Secret>,
    /// Whether it has a secret that was encrypted with another key.
    pub is_unreadable: bool,
}

/// A setting to be written or deleted.
#[derive(Clone, Debug)]
pub struct SettingWrite {
    pub kind: SettingKind,
    pub id: String,
    /// JSON and secret. `None` deletes the setting.
    pub body: Option<(String, Option<Secret>)>,
    /// Whether to keep the stored secret that this process can't decrypt.
    pub keeps_sealed: bool,
}
