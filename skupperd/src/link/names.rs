//! Names of the router protocol: properties, capabilities and addresses, as the Go and C implementation
//! spells them, and those by which routers of this project know each other.

/// Application property of a stream's head by which an endpoint of this project is known to the other.
/// It goes from hop to hop for as long as routers of this project pass it on.
pub(crate) const NATIVE_END: &str = "io.skupper.native";

// Properties of `open`.
/// The port of the accepting router, by which the dialling router distinguishes its ports.
pub(crate) const ACCESS_ID: &str = "qd.access-id";
/// The site of the accepting router, for an edge, which does not learn it from the network.
pub(crate) const SITE_ADVERT: &str = "io.skupper.site";
pub(crate) const CONN_ID: &str = "qd.conn-id";
pub(crate) const ANNOTATIONS_VERSION: &str = "qd.annotations-version";
/// Cost of the link; absent for 1.
pub(crate) const INTER_ROUTER_COST: &str = "qd.inter-router-cost";
/// 4: this is a data connection of a trunk.
pub(crate) const INTER_ROUTER_ROLE: &str = "qd.inter-router-role";
/// What the connections of one link have in common.
pub(crate) const GROUP_CORRELATOR: &str = "qd.group-correlator";
pub(crate) const GROUP_ORDINAL: &str = "qd.group-ordinal";
/// The link that a connection belongs to, the same after another connection has taken over.
pub(crate) const LINK_INSTANCE: &str = "io.skupper.link";

// Capabilities of connections.
pub(crate) const STREAMING_LINKS: &str = "qd.streaming-links";
pub(crate) const CONNECTION_TRUNKING: &str = "qd.connection_trunking";

// Capabilities of links.
/// Control messages between routers.
pub(crate) const ROUTER_CONTROL: &str = "qd.router";
/// Messages and streams between routers.
pub(crate) const ROUTER_DATA: &str = "qd.router-data";
/// The link for what goes to an edge by its id.
pub(crate) const DOWNLINK: &str = "qd.router-edge-downlink";

// Addresses of links between an edge and its interior router.
/// Address on which an edge announces its mesh.
pub(crate) const MESH: &str = "_$qd.mesh_discovery";
/// Address on which an edge learns which of its addresses have receivers.
pub(crate) const TRACKING: &str = "_$qd.edge_addr_tracking";
/// Name of the property with the mesh.
pub(crate) const MESH_ID: &str = "meshid";

/// Condition with which a router closes the connections of a link that it deletes. Its peer does not
/// reserve the router's id.
pub(crate) const LINK_DELETED: &str = "io.skupper.link-deleted";

/// Prefix of the address that announces a listener to connectors of other sites; it gets no messages.
pub const LISTENER_ADVERT: &str = "skupper-listener/";
