use model::Secret;

/// What a setting is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingKind {
    Account,
    Application,
    Waba,
    Number,
}

impl SettingKind {
    /// The word in the store.
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

/// A setting as it is kept.
#[derive(Clone, Debug)]
pub struct Setting {
    pub kind: SettingKind,
    pub id: String,
    /// JSON, as `admission::book` reads it.
    pub body: String,
    pub secret: Option<Secret>,
    /// It has a secret that another key sealed.
    pub shut: bool,
}

/// A setting to be written, or one to be forgotten.
#[derive(Clone, Debug)]
pub struct SettingWrite {
    pub kind: SettingKind,
    pub id: String,
    /// JSON and secret; none: forgotten.
    pub body: Option<(String, Option<Secret>)>,
    /// The secret that is there stays: this process can't read it, and has no other.
    pub keeps_sealed: bool,
}
