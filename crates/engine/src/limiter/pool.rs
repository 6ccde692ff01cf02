//! A bounded resource that clients share, such as connections.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use model::{AuthId, network_prefix};
use tokio_util::sync::CancellationToken;

use super::{Offenders, Resource, Share, Shares};

/// A resource of which at most `max` units are in use.
///
/// When it is full, the oldest unauthenticated claim of the network with the most units is evicted.
/// Authenticated claims are never evicted. All operations take logarithmic time.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    max: usize,
    /// Where evictions are counted; `None` for the admin listener.
    offenders: Option<(Resource, Offenders)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: usize,
    /// The number of the next claim or renewal. It orders claims by age.
    next: u64,
    places: HashMap<u64, Place>,
    networks: HashMap<IpAddr, Network>,
    /// The networks, ordered by units and then by the age of their oldest claim. The last one is
    /// evicted first.
    by_weight: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

/// The unauthenticated claims of a network.
#[derive(Default)]
struct Network {
    weight: usize,
    /// Ids of claims by age.
    claims: BTreeMap<u64, u64>,
}

struct Place {
    network: IpAddr,
    age: u64,
    weight: usize,
    /// How often it is authenticated. It can be evicted while this is 0.
    authenticated: u32,
    evicted: CancellationToken,
}

/// A part of a [`Pool`] that is in use. It is given back when dropped.
pub struct Claim {
    pool: Pool,
    id: u64,
    evicted: CancellationToken,
}

/// Keeps a claim from being evicted until it is dropped.
pub struct Kept(Arc<Claim>);

/// The claims behind a request, in its extensions.
#[derive(Clone)]
pub struct RequestClaims {
    pub connection: Arc<Claim>,
    pub body: Arc<Claim>,
    /// The requests in progress of each main account.
    pub in_progress: Shares<AuthId>,
    /// The share of this request, which the server keeps until the response has been sent.
    pub share: RequestShare,
}

/// Empty until the request is authenticated.
pub type RequestShare = Arc<OnceLock<Authenticated>>;

/// What an authenticated request holds until its response has been sent.
pub struct Authenticated {
    /// Its share in the requests that its account may have in progress; `None` for a webhook of Meta.
    _account: Option<Share<AuthId>>,
    _connection: Kept,
}

impl RequestClaims {
    /// Marks the request as authenticated, so that its body can't be evicted, and its connection only
    /// after the response has been sent.
    pub fn authenticate(&self) {
        self.hold(None);
        self.body.authenticate();
    }

    /// Marks the request as authenticated before its body is read, as in
    /// [`RequestClaims::authenticate`]. The body then does not count, because the limits of the
    /// account apply. Returns `false` if the account has too many requests in progress: they can't be
    /// evicted, so they would shut out others.
    #[must_use]
    pub fn authenticate_caller(&self, main_account: &AuthId) -> bool {
        let is_admitted = self.admit_caller(main_account);
        if is_admitted {
            self.body.release();
        }
        is_admitted
    }

    /// Like [`RequestClaims::authenticate_caller`], but the body counts, for example because it is
    /// read before the limits of the account apply.
    #[must_use]
    pub fn admit_caller(&self, main_account: &AuthId) -> bool {
        if self.share.get().is_none() {
            let Some(share) = self.in_progress.take(main_account.clone()) else { return false };
            self.hold(Some(share));
        }
        true
    }

    fn hold(&self, account: Option<Share<AuthId>>) {
        let kept = Claim::keep(&self.connection);
        let _ = self.share.set(Authenticated { _account: account, _connection: kept });
    }
}

impl Pool {
    pub fn new(max: usize, offenders: Option<(Resource, Offenders)>) -> Self {
        Self(Arc::new(Inner { max, offenders, state: Mutex::default() }))
    }

    /// Claims `weight` units for the network of `from`. If all others are authenticated, the claim
    /// itself is evicted at once.
    pub fn claim(&self, from: IpAddr, weight: usize) -> Claim {
        self.claim_until(from, weight, CancellationToken::new())
    }

    /// Like [`Pool::claim`]. An eviction cancels `evicted`.
    pub fn claim_until(&self, from: IpAddr, weight: usize, evicted: CancellationToken) -> Claim {
        let mut state = self.state();
        let id = state.next_age();
        let place = Place {
            network: network_prefix(from),
            age: id,
            weight,
            authenticated: 0,
            evicted: evicted.clone(),
        };
        state.add(id, place);
        let victims = state.shrink(self.0.max);
        drop(state);
        self.record(&victims);
        Claim { pool: self.clone(), id, evicted }
    }

    /// Evicts the next claim. Returns `false` if there is none.
    pub fn evict(&self) -> bool {
        let victim = self.state().evict();
        self.record(victim.as_slice());
        victim.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, victims: &[IpAddr]) {
        let Some((resource, offenders)) = &self.0.offenders else { return };
        victims.iter().for_each(|network| offenders.record(*resource, *network));
    }
}

impl Claim {
    /// Cancelled when the claim is evicted.
    pub fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// Marks the claim as new and of the network of `from`.
    pub fn renew(&self, from: IpAddr) {
        let mut state = self.pool.state();
        let age = state.next_age();
        let network = network_prefix(from);
        state.replace(self.id, |place| Place { network, age, ..place });
    }

    /// Adds units to the claim, unless it was released. Returns `false` if it is evicted.
    pub fn grow(&self, by: usize) -> bool {
        let mut state = self.pool.state();
        let Some(place) = state.take(self.id) else { return !self.evicted.is_cancelled() };
        let weight = place.weight.saturating_add(by);
        state.add(self.id, Place { weight, ..place });
        let victims = state.shrink(self.pool.0.max);
        drop(state);
        self.pool.record(&victims);
        !self.evicted.is_cancelled()
    }

    /// Keeps the claim from being evicted.
    pub fn authenticate(&self) {
        self.pool.state().replace(self.id, |place| Place {
            authenticated: place.authenticated.saturating_add(1),
            ..place
        });
    }

    /// Keeps the claim from being evicted until the returned value is dropped. Unless another one
    /// exists, it then is as new as after [`Claim::renew`].
    pub fn keep(claim: &Arc<Self>) -> Kept {
        claim.authenticate();
        Kept(claim.clone())
    }

    /// Whether the claim is kept from being evicted.
    pub fn is_authenticated(&self) -> bool {
        self.pool.state().places.get(&self.id).is_some_and(Place::is_authenticated)
    }

    /// Gives the units back before the claim is dropped.
    pub fn release(&self) {
        self.pool.state().take(self.id);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut state = self.0.pool.state();
        let age = state.next_age();
        state.replace(self.0.id, |place| Place {
            age,
            authenticated: place.authenticated.saturating_sub(1),
            ..place
        });
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

impl Place {
    fn is_authenticated(&self) -> bool {
        self.authenticated > 0
    }
}

impl State {
    fn next_age(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn add(&mut self, id: u64, place: Place) {
        self.total = self.total.saturating_add(place.weight);
        if !place.is_authenticated() {
            self.change(place.network, |network| {
                network.weight = network.weight.saturating_add(place.weight);
                network.claims.insert(place.age, id);
            });
        }
        self.places.insert(id, place);
    }

    /// Replaces a place, unless the claim was released or evicted.
    fn replace(&mut self, id: u64, with: impl FnOnce(Place) -> Place) {
        if let Some(place) = self.take(id) {
            self.add(id, with(place));
        }
    }

    fn take(&mut self, id: u64) -> Option<Place> {
        let place = self.places.remove(&id)?;
        self.total = self.total.saturating_sub(place.weight);
        if !place.is_authenticated() {
            self.change(place.network, |network| {
                network.weight = network.weight.saturating_sub(place.weight);
                network.claims.remove(&place.age);
            });
        }
        Some(place)
    }

    /// Changes a network and its position in `by_weight`.
    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Network)) {
        let key = |network: &Network| {
            let (oldest, _) = network.claims.first_key_value()?;
            Some((network.weight, Reverse(*oldest), address))
        };
        let network = self.networks.entry(address).or_default();
        if let Some(key) = key(network) {
            self.by_weight.remove(&key);
        }
        change(network);
        match key(network) {
            Some(key) => drop(self.by_weight.insert(key)),
            None => drop(self.networks.remove(&address)),
        }
    }

    /// Evicts claims until at most `max` units are in use. Returns their networks.
    fn shrink(&mut self, max: usize) -> Vec<IpAddr> {
        let mut victims = Vec::new();
        while self.total > max
            && let Some(network) = self.evict()
        {
            victims.push(network);
        }
        victims
    }

    fn evict(&mut self) -> Option<IpAddr> {
        let (_, _, network) = self.by_weight.last()?;
        let (_, id) = self.networks.get(network)?.claims.first_key_value()?;
        let place = self.take(*id)?;
        place.evicted.cancel();
        Some(place.network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn evicted(claims: &[Claim]) -> Vec<bool> {
        claims.iter().map(|claim| claim.evicted().is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_claim_of_the_largest_network_gives_way() {
        let pool = Pool::new(4, None);
        let mut claims: Vec<_> = [1, 2, 2, 1].map(|n| pool.claim(network(n), 1)).into();
        claims.push(pool.claim(network(3), 1));
        assert_eq!(evicted(&claims), [true, false, false, false, false], "the oldest of equals");
        claims.push(pool.claim(network(3), 1));
        assert_eq!(evicted(&claims), [true, true, false, false, false, false]);
        for _ in 0..10 {
            claims.push(pool.claim(network(3), 1));
        }
        assert_eq!(evicted(&claims[2..4]), [false, false], "a network displaces no other");
        assert_eq!(pool.state().total, 4);
        claims.clear();
        let state = pool.state();
        assert_eq!((state.total, state.places.len(), state.networks.len()), (0, 0, 0));
        assert!(state.by_weight.is_empty());
    }

    #[test]
    fn renewed_claims_are_young_and_authenticated_ones_stay() {
        let pool = Pool::new(3, None);
        let claims = [1, 1, 1].map(|n| Arc::new(pool.claim(network(n), 1)));
        let evicted = || claims.each_ref().map(|claim| claim.evicted().is_cancelled());
        claims[0].renew(network(1));
        let _next = pool.claim(network(2), 1);
        assert_eq!(evicted(), [false, true, false]);
        claims[0].authenticate();
        let kept = [Claim::keep(&claims[2]), Claim::keep(&claims[2])];
        assert!(!_next.evicted().is_cancelled());
        _next.authenticate();
        assert!(pool.claim(network(3), 1).evicted().is_cancelled(), "no room");
        let [first, second] = kept;
        drop(first);
        claims[2].renew(network(1));
        assert!(pool.claim(network(3), 1).evicted().is_cancelled(), "it is still kept");
        drop(second);
        assert!(!pool.claim(network(3), 1).evicted().is_cancelled());
        assert_eq!(evicted(), [false, true, true]);
    }

    #[test]
    fn many_large_claims_leave_room_for_a_small_one() {
        let pool = Pool::new(100, None);
        let large: Vec<_> = (0..30).map(|_| pool.claim(network(1), 0)).collect();
        let small = pool.claim(network(2), 0);
        for _ in 0..10 {
            for claim in &large {
                claim.grow(5);
            }
            assert!(small.grow(1));
        }
        assert!(!small.evicted().is_cancelled());
        assert!(large.iter().any(|claim| !claim.grow(1)));
        let grown = pool.claim(network(3), 0);
        assert!(!grown.grow(200), "larger than the pool");
        assert!(pool.state().total <= 100);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let pool = Pool::new(2, None);
        let claims = ["2001:db8::1", "198.51.100.1", "2001:db8::2"]
            .map(|address| pool.claim(address.parse().unwrap(), 1));
        assert_eq!(evicted(&claims), [true, false, false]);
    }
}
