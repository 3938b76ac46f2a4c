//! What `setuid(2)` and its kin do to the ids of a process. Pure.

use rustix::io::Errno;

/// "Leave it as it is".
pub(super) const KEEP: u32 = u32::MAX;

/// Real, effective and saved: of users or of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ids {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
}

impl Ids {
    const ROOT: Self = Self { real: 0, effective: 0, saved: 0 };

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// `setuid` and `setgid`.
    fn set(self, id: u32, privileged: bool) -> Result<Self, Errno> {
        match id {
            KEEP => Err(Errno::INVAL),
            id if privileged => Ok(Self { real: id, effective: id, saved: id }),
            id if id == self.real || id == self.saved => Ok(Self { effective: id, ..self }),
            _ => Err(Errno::PERM),
        }
    }

    /// `setreuid` and `setregid`.
    fn set_two(self, real: u32, effective: u32, privileged: bool) -> Result<Self, Errno> {
        let mut new = self;
        if real != KEEP {
            if !privileged && real != self.real && real != self.effective {
                return Err(Errno::PERM);
            }
            new.real = real;
        }
        if effective != KEEP {
            if !privileged && !self.has(effective) {
                return Err(Errno::PERM);
            }
            new.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != self.real) {
            new.saved = new.effective;
        }
        Ok(new)
    }

    /// `setresuid` and `setresgid`.
    fn set_three(self, all: [u32; 3], privileged: bool) -> Result<Self, Errno> {
        if !privileged && all.iter().any(|id| *id != KEEP && !self.has(*id)) {
            return Err(Errno::PERM);
        }
        let or = |id, old| if id == KEEP { old } else { id };
        let [real, effective, saved] = all;
        Ok(Self {
            real: or(real, self.real),
            effective: or(effective, self.effective),
            saved: or(saved, self.saved),
        })
    }
}

/// All ids of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Credentials {
    pub(super) uid: Ids,
    pub(super) gid: Ids,
    pub(super) groups: Vec<u32>,
}

/// A change of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Uid(u32),
    Gid(u32),
    Uids(u32, u32),
    Gids(u32, u32),
    AllUids([u32; 3]),
    AllGids([u32; 3]),
    Groups(Vec<u32>),
}

impl Credentials {
    pub(super) const ROOT: Self = Self { uid: Ids::ROOT, gid: Ids::ROOT, groups: Vec::new() };

    /// Whether what it makes belongs to root's user and group.
    pub(super) fn makes_roots(&self) -> bool {
        self.uid.effective == 0 && self.gid.effective == 0
    }

    /// Stands in for the capabilities to set ids, which go with the effective user.
    fn is_privileged(&self) -> bool {
        self.uid.effective == 0
    }

    pub(super) fn change(&self, change: &Change) -> Result<Self, Errno> {
        let may = self.is_privileged();
        let mut new = self.clone();
        match change {
            Change::Uid(id) => new.uid = self.uid.set(*id, may)?,
            Change::Gid(id) => new.gid = self.gid.set(*id, may)?,
            Change::Uids(real, effective) => new.uid = self.uid.set_two(*real, *effective, may)?,
            Change::Gids(real, effective) => new.gid = self.gid.set_two(*real, *effective, may)?,
            Change::AllUids(all) => new.uid = self.uid.set_three(*all, may)?,
            Change::AllGids(all) => new.gid = self.gid.set_three(*all, may)?,
            Change::Groups(_) if !may => return Err(Errno::PERM),
            Change::Groups(groups) => new.groups.clone_from(groups),
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved }
    }

    #[test]
    fn as_the_kernel_does() {
        let of = |uid: Ids| Credentials { uid, ..Credentials::ROOT };
        let (root, user, switched) = (ids(0, 0, 0), ids(7, 7, 7), ids(0, 7, 0));
        for (before, change, after) in [
            (root, Change::Uid(7), Ok(user)),
            (user, Change::Uid(0), Err(Errno::PERM)),
            (user, Change::Uid(7), Ok(user)),
            (root, Change::Uid(KEEP), Err(Errno::INVAL)),
            (root, Change::AllUids([KEEP, 7, KEEP]), Ok(switched)),
            (switched, Change::AllUids([KEEP, 0, KEEP]), Ok(root)),
            (switched, Change::Uid(0), Ok(root)),
            (user, Change::AllUids([0, KEEP, KEEP]), Err(Errno::PERM)),
            (root, Change::Uids(7, 7), Ok(user)),
            (root, Change::Uids(KEEP, 7), Ok(ids(0, 7, 7))),
            (switched, Change::Uids(7, 0), Ok(ids(7, 0, 0))),
            (user, Change::Uids(KEEP, 8), Err(Errno::PERM)),
        ] {
            let found = of(before).change(&change).map(|new| new.uid);
            assert_eq!(found, after, "{before:?} {change:?}");
        }
        assert_eq!(of(user).change(&Change::Groups(vec![1])), Err(Errno::PERM));
        assert_eq!(of(user).change(&Change::Gid(3)), Err(Errno::PERM));
        let grouped = Credentials::ROOT.change(&Change::Groups(vec![1, 2])).unwrap();
        assert_eq!(grouped.groups, [1, 2]);
    }
}
