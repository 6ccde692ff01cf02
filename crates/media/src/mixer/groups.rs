//! Assigns encoders to groups of members with the same audio.
//!
//! The sounds of a room are numbered, at most 64 at a time; each member hears a set of them.
//! Members with equal sets share one encoded frame, so that a room needs one encoder per speaker
//! and one for everyone else. An encoder keeps its listeners from frame to frame if possible,
//! because a decoder may click when it switches to another stream.

use std::collections::BTreeMap;

/// A set of sounds, one bit each.
pub(super) type SoundSet = u64;

/// Maximum number of sounds at a time.
pub(super) const SOUNDS_MAX: usize = 64;

/// The members who hear the same frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) sounds: SoundSet,
    /// Index of the encoder.
    pub(super) encoder: usize,
    /// Whether none of the members had this encoder before. The encoder must then be reset.
    pub(super) fresh: bool,
    pub(super) members: Vec<u64>,
}

/// For each member, the encoder that encoded its last frame.
#[derive(Clone, Debug, Default)]
pub(super) struct EncoderAssignment {
    by_member: BTreeMap<u64, usize>,
}

impl EncoderAssignment {
    /// Forms the groups of a frame. `sets` yields the sounds that each member hears. Members who
    /// hear nothing are in no group and keep their encoder.
    pub(super) fn groups(&mut self, sets: impl Iterator<Item = (u64, SoundSet)>) -> Vec<Group> {
        let mut by_sounds: BTreeMap<SoundSet, Vec<u64>> = BTreeMap::new();
        for (member, sounds) in sets.filter(|(_, sounds)| *sounds != 0) {
            by_sounds.entry(sounds).or_default().push(member);
        }
        let mut groups: Vec<_> = by_sounds.into_iter().collect();
        // The largest group chooses its encoder first.
        groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
        let mut taken = Vec::with_capacity(groups.len());
        let mut chosen = Vec::with_capacity(groups.len());
        for (sounds, members) in groups {
            let encoder = self.preferred_encoder(&members, &taken);
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
            self.by_member.extend(group.members.iter().map(|member| (*member, group.encoder)));
        }
        groups
    }

    /// Returns the free encoder that most of these members had before. `None` if there is none.
    fn preferred_encoder(&self, members: &[u64], taken: &[usize]) -> Option<usize> {
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for encoder in members
            .iter()
            .filter_map(|member| self.by_member.get(member))
            .filter(|n| !taken.contains(n))
        {
            *votes.entry(*encoder).or_default() += 1;
        }
        votes
            .into_iter()
            .max_by_key(|(encoder, votes)| (*votes, std::cmp::Reverse(*encoder)))
            .map(|(encoder, _)| encoder)
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, member: u64) {
        self.by_member.remove(&member);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{EncoderAssignment, SoundSet};

    /// For each group: sounds, encoder, whether it is fresh, members.
    fn groups(
        encoders: &mut EncoderAssignment,
        sets: &[(u64, SoundSet)],
    ) -> Vec<(SoundSet, usize, bool, Vec<u64>)> {
        let groups = encoders.groups(sets.iter().copied());
        groups.into_iter().map(|g| (g.sounds, g.encoder, g.fresh, g.members)).collect()
    }

    #[test]
    fn members_who_hear_the_same_share_and_keep_an_encoder() {
        let mut encoders = EncoderAssignment::default();
        assert!(groups(&mut encoders, &[(1, 0), (2, 0)]).is_empty(), "silence needs no encoder");
        // The first member speaks: one encoder for all listeners.
        let speaks = [(1, 0), (2, 1), (3, 1), (4, 1)];
        assert_eq!(groups(&mut encoders, &speaks), [(1, 0, true, vec![2, 3, 4])]);
        assert_eq!(groups(&mut encoders, &speaks), [(1, 0, false, vec![2, 3, 4])]);
        // The second member speaks too: it hears another mix, and the first one begins to hear
        // something.
        let both = [(1, 2), (2, 1), (3, 3), (4, 3)];
        let now = groups(&mut encoders, &both);
        assert_eq!(now[0], (3, 0, false, vec![3, 4]), "the majority keeps its encoder");
        assert_eq!((now[1].2, now[2].2), (true, true));
        // Only the second member speaks. A member that was silent returns to the encoder it had.
        let other = [(1, 2), (2, 0), (3, 2), (4, 2)];
        assert_eq!(groups(&mut encoders, &other), [(2, 0, false, vec![1, 3, 4])]);
        encoders.remove(3);
        assert_eq!(groups(&mut encoders, &[(3, 1)]), [(1, 0, true, vec![3])]);
    }

    proptest! {
        /// Every member with a non-empty set is in one group, and each encoder serves one group.
        #[test]
        fn each_listener_has_one_encoder(frames in prop::collection::vec(prop::collection::vec(0..5_u64, 1..12), 1..20)) {
            let mut encoders = EncoderAssignment::default();
            for frame in frames {
                let sets: Vec<(u64, SoundSet)> = (0..).zip(frame).collect();
                let groups = encoders.groups(sets.iter().copied());
                let mut used: Vec<_> = groups.iter().map(|g| g.encoder).collect();
                used.sort_unstable();
                used.dedup();
                prop_assert_eq!(used.len(), groups.len());
                for (member, sounds) in sets {
                    let of: Vec<_> = groups.iter().filter(|g| g.members.contains(&member)).map(|g| g.sounds).collect();
                    prop_assert_eq!(of, if sounds == 0 { vec![] } else { vec![sounds] });
                }
                prop_assert!(groups.len() <= 4);
            }
        }
    }
}
