use model::{AuthId, PhoneNumberId, Routing};

/// A change of a number's routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingChange {
    pub phone_number_id: PhoneNumberId,
    /// Owner of the number.
    pub account: AuthId,
    pub routing: Routing,
    pub all: bool,
}

/// The present and the first owner of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberOwners {
    pub owner: AuthId,
    pub first: AuthId,
}

/// A transfer of a number to another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberTransfer {
    pub phone_number_id: PhoneNumberId,
    pub owner: AuthId,
    /// The previous owners, if this process knows them.
    pub before: NumberOwners,
    /// The number's routing if it remains valid for the new owner. `None` otherwise.
    pub kept: Option<Routing>,
    /// The new routing of conversations that the new owner had with this number before.
    pub routing: Routing,
}
