//! Which network containers have where nobody says.

use lapstrake_net::{Choice, NetError, Way, advice};

use crate::sandbox::Sandbox;
use crate::spec::Network;

/// What is wanted for containers that do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPreference {
    /// A network of their own where one can be made that leads out, else the host's.
    #[default]
    OwnIfPossible,
    /// A network of their own, or none.
    Own,
    /// The host's.
    Host,
}

/// What containers have, and what a person should know about that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenNetwork {
    /// Their network.
    pub network: Network,
    /// What is other than wanted, in one line.
    pub notice: Option<String>,
    /// What would help.
    pub hint: Option<String>,
}

impl ChosenNetwork {
    fn plain(network: Network) -> Self {
        Self { network, notice: None, hint: None }
    }
}

impl Sandbox {
    /// Finds out what containers have. The first network of their own is made for that, and the next container has it.
    ///
    /// # Errors
    /// [`NetError`] with [`NetworkPreference::Own`], where there are no such networks.
    pub fn choose_network(&self, wanted: NetworkPreference) -> Result<ChosenNetwork, NetError> {
        if wanted == NetworkPreference::Host {
            return Ok(ChosenNetwork::plain(Network::Host));
        }
        match (self.way_out(), wanted) {
            (Ok(choice), _) => {
                let chosen = chosen(&choice, wanted);
                tracing::info!(way = ?choice.way, network = ?chosen.network, "the network of containers");
                Ok(chosen)
            }
            (Err(error), NetworkPreference::Own) => Err(error),
            (Err(error), _) => {
                tracing::info!(%error, "containers have the host's network");
                Ok(ChosenNetwork { notice: Some(without(&error)), ..ChosenNetwork::plain(Network::Host) })
            }
        }
    }
}

fn chosen(choice: &Choice, wanted: NetworkPreference) -> ChosenNetwork {
    let Some(chains) = &choice.blocked else { return ChosenNetwork::plain(Network::Isolated) };
    let dropped = dropped(chains);
    match choice.way {
        Way::Program(program) => {
            let notice = format!("containers have networks by {program}, as {dropped}");
            ChosenNetwork { notice: Some(notice), ..ChosenNetwork::plain(Network::Isolated) }
        }
        Way::Nat if wanted == NetworkPreference::Own => ChosenNetwork {
            network: Network::Isolated,
            notice: Some(format!("{dropped}, so a container's own network does not get out")),
            hint: (!chains.is_empty()).then(|| advice(chains)),
        },
        Way::Nat => {
            let notice = format!(
                "containers have the host's network, as {dropped}; the package passt or slirp4netns would help"
            );
            ChosenNetwork { notice: Some(notice), ..ChosenNetwork::plain(Network::Host) }
        }
    }
}

/// That packets of containers do not pass, and why.
pub fn dropped(chains: &[String]) -> String {
    match chains {
        [] => "what the machine forwards is dropped by its packet rules".to_owned(),
        chains => format!("what the machine forwards is dropped by {}", chains.join(", ")),
    }
}

fn without(error: &NetError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(one) = cause {
        text.push_str(&format!(": {one}"));
        cause = one.source();
    }
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("containers have the host's network: {text}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containers_have() {
        let rules = || Some(vec!["ip filter FORWARD".to_owned()]);
        let (nat, helper) = (Way::Nat, Way::Program("pasta"));
        for (way, blocked, wanted, network, notice, hint) in [
            (nat, None, NetworkPreference::OwnIfPossible, Network::Isolated, "", ""),
            (nat, None, NetworkPreference::Own, Network::Isolated, "", ""),
            (helper, None, NetworkPreference::OwnIfPossible, Network::Isolated, "", ""),
            (helper, rules(), NetworkPreference::OwnIfPossible, Network::Isolated, "by pasta, as", ""),
            (nat, rules(), NetworkPreference::OwnIfPossible, Network::Host, "the host's network, as", ""),
            (
                nat,
                Some(Vec::new()),
                NetworkPreference::OwnIfPossible,
                Network::Host,
                "by its packet rules",
                "",
            ),
            (
                nat,
                rules(),
                NetworkPreference::Own,
                Network::Isolated,
                "by ip filter FORWARD, so",
                "insert rule",
            ),
        ] {
            let found = chosen(&Choice { way, blocked }, wanted);
            assert_eq!(found.network, network, "{found:?}");
            let (told, helps) =
                (found.notice.clone().unwrap_or_default(), found.hint.clone().unwrap_or_default());
            assert_eq!(
                (told.is_empty(), helps.is_empty()),
                (notice.is_empty(), hint.is_empty()),
                "{found:?}"
            );
            assert!(told.contains(notice) && helps.contains(hint) && !told.contains('\n'), "{found:?}");
        }
        let told = without(&NetError::NoHelper);
        assert!(told.contains("neither is installed; install the package"), "{told}");
    }
}
