use model::{AuthId, PhoneNumberId, Routing};

/// A number's routing changes, and with it that of its conversations where `all` says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reroute {
    pub phone_number_id: PhoneNumberId,
    /// Whose number it is.
    pub account: AuthId,
    pub routing: Routing,
    pub all: bool,
}

/// Who has a number, and who had it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    pub owner: AuthId,
    pub first: AuthId,
}

/// A number is another account's from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub phone_number_id: PhoneNumberId,
    pub owner: AuthId,
    /// Who had it until now, as far as memory knows.
    pub before: Tenure,
    /// What was set of the number's routing and may go on with the new owner.
    pub kept: Option<Routing>,
    /// Where the new owner's conversations of an earlier time go: as new ones do.
    pub routing: Routing,
}
