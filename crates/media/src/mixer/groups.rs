//! Who hears what, and whose ears share an encoder.
//!
//! A room's sounds have numbers, 64 at most at a time; what a member hears is a set of them. All who hear the same share one
//! encoded frame, so that a room costs an encoder for each who speaks and one for all others, however many those are. From
//! one frame to the next an encoder stays with its listeners where it can: a decoder that changes the stream it follows may
//! click.

use std::collections::BTreeMap;

/// A set of sounds, a bit each.
pub(super) type Sounds = u64;

/// Sounds of a room at a time.
pub(super) const SOUNDS_MAX: usize = 64;

/// Listeners of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) sounds: Sounds,
    /// Which encoder: a number from 0.
    pub(super) encoder: usize,
    /// None of them had this encoder before: it begins anew.
    pub(super) fresh: bool,
    pub(super) members: Vec<u64>,
}

/// Which encoder each member heard last.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoders {
    of: BTreeMap<u64, usize>,
}

impl Encoders {
    /// This frame's groups. `hears`: what each member hears; who hears nothing is in none of them, and keeps the encoder.
    pub(super) fn groups(&mut self, hears: impl Iterator<Item = (u64, Sounds)>) -> Vec<Group> {
        let mut by_sounds: BTreeMap<Sounds, Vec<u64>> = BTreeMap::new();
        for (member, sounds) in hears.filter(|(_, sounds)| *sounds != 0) {
            by_sounds.entry(sounds).or_default().push(member);
        }
        let mut groups: Vec<_> = by_sounds.into_iter().collect();
        // The largest chooses first.
        groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
        let mut taken = Vec::with_capacity(groups.len());
        let mut chosen = Vec::with_capacity(groups.len());
        for (sounds, members) in groups {
            let encoder = self.favourite(&members, &taken);
            taken.extend(encoder);
            chosen.push((sounds, members, encoder));
        }
        let groups = chosen.into_iter().map(|(sounds, members, encoder)| {
            let fresh = encoder.is_none();
            let encoder =
                encoder.unwrap_or_else(|| (0..).find(|n| !taken.contains(n)).unwrap_or_default());
            if fresh {
                taken.push(encoder);
            }
            Group { sounds, encoder, fresh, members }
        });
        let groups: Vec<_> = groups.collect();
        for group in &groups {
            self.of.extend(group.members.iter().map(|member| (*member, group.encoder)));
        }
        groups
    }

    /// The encoder that most of these had, of those that are free.
    fn favourite(&self, members: &[u64], taken: &[usize]) -> Option<usize> {
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for encoder in
            members.iter().filter_map(|member| self.of.get(member)).filter(|n| !taken.contains(n))
        {
            *votes.entry(*encoder).or_default() += 1;
        }
        votes
            .into_iter()
            .max_by_key(|(encoder, votes)| (*votes, std::cmp::Reverse(*encoder)))
            .map(|(encoder, _)| encoder)
    }

    /// A member has gone.
    pub(super) fn forget(&mut self, member: u64) {
        self.of.remove(&member);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Encoders, Sounds};

    /// Of each group: what is heard, by which encoder, whether it is fresh, by whom.
    fn groups(
        encoders: &mut Encoders,
        hears: &[(u64, Sounds)],
    ) -> Vec<(Sounds, usize, bool, Vec<u64>)> {
        let groups = encoders.groups(hears.iter().copied());
        groups.into_iter().map(|g| (g.sounds, g.encoder, g.fresh, g.members)).collect()
    }

    #[test]
    fn all_who_hear_the_same_share_an_encoder_and_keep_it() {
        let mut encoders = Encoders::default();
        assert!(groups(&mut encoders, &[(1, 0), (2, 0)]).is_empty(), "silence is nobody's work");
        // The first speaks: one encoder, whatever the number of listeners.
        let speaks = [(1, 0), (2, 1), (3, 1), (4, 1)];
        assert_eq!(groups(&mut encoders, &speaks), [(1, 0, true, vec![2, 3, 4])]);
        assert_eq!(groups(&mut encoders, &speaks), [(1, 0, false, vec![2, 3, 4])]);
        // The second begins to speak too: it hears another mix, and the first begins to hear something.
        let both = [(1, 2), (2, 1), (3, 3), (4, 3)];
        let now = groups(&mut encoders, &both);
        assert_eq!(now[0], (3, 0, false, vec![3, 4]), "most of them keep what they had");
        assert_eq!((now[1].2, now[2].2), (true, true));
        // Only the second speaks now; who has been silent meanwhile comes back to the encoder that it had.
        let other = [(1, 2), (2, 0), (3, 2), (4, 2)];
        assert_eq!(groups(&mut encoders, &other), [(2, 0, false, vec![1, 3, 4])]);
        encoders.forget(3);
        assert_eq!(groups(&mut encoders, &[(3, 1)]), [(1, 0, true, vec![3])]);
    }

    proptest! {
        /// Everybody who hears something is in one group, and no encoder serves two.
        #[test]
        fn each_listener_has_one_encoder(frames in prop::collection::vec(prop::collection::vec(0..5_u64, 1..12), 1..20)) {
            let mut encoders = Encoders::default();
            for frame in frames {
                let hears: Vec<(u64, Sounds)> = (0..).zip(frame).collect();
                let groups = encoders.groups(hears.iter().copied());
                let mut used: Vec<_> = groups.iter().map(|g| g.encoder).collect();
                used.sort_unstable();
                used.dedup();
                prop_assert_eq!(used.len(), groups.len());
                for (member, sounds) in hears {
                    let of: Vec<_> = groups.iter().filter(|g| g.members.contains(&member)).map(|g| g.sounds).collect();
                    prop_assert_eq!(of, if sounds == 0 { vec![] } else { vec![sounds] });
                }
                prop_assert!(groups.len() <= 4);
            }
        }
    }
}
