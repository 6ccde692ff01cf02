//! The names under which processes own rows.

use uuid::Uuid;

/// Returns the name under which a run of a fleet owns rows: the node's name and the run's id. A
/// node outside a fleet owns rows under its name.
pub fn owner_name(node_id: &str, run: Uuid) -> String {
    format!("{node_id}/{run}")
}

/// Returns the node's name from the name of an owner.
pub fn node_of_owner(owner: &str) -> &str {
    owner.split('/').next().unwrap_or_default()
}

/// Returns the run from the name of an owner. `None` if the owner is a node outside a fleet.
pub fn run_of_owner(owner: &str) -> Option<Uuid> {
    owner.rsplit_once('/').and_then(|(_, run)| run.parse().ok())
}
