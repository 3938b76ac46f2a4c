//! OCI layouts of the client as places of images.

use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_graph::ImageStore;
use lapstrake_llb::ClientLayout;
use lapstrake_oci::Reference;

use crate::caller::stores::{IMAGES, StoreName};
use crate::jobs::Definitions;

/// The client's layout on this machine, with everything of the image `reference`.
///
/// # Errors
/// The reference has no digest, or the client does not have the image.
pub(crate) async fn layout_of(
    definitions: &Definitions,
    layout: &ClientLayout,
    reference: &Reference,
) -> Outcome<ImageStore> {
    let digest = reference.digest().ok_or_else(|| {
        Report::new(format!("the image `{reference}` of an OCI layout needs a digest"))
            .with_fault(Fault::Usage)
    })?;
    let name = StoreName { session: layout.session.clone(), id: format!("{IMAGES}{}", layout.store) };
    let path = definitions.caller.layout_of(&name.to_path(), Some(digest)).await?;
    Ok(ImageStore::Layout { path: path.to_string_lossy().into_owned() })
}
