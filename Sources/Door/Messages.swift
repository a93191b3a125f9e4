import Bytes
import Crypto
import ISCSI
import SCSI
import TLS

/// A connection while it logs in: drawn by the login process, never used again in its life.
public struct ConnectionID: Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// Ties an answer to its question.
public struct RequestID: Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// What a connection that logs in stands on, as whoever has accepted it says.
public struct LoginChannel: Hashable, Sendable {
    /// The number of its portal.
    public var portal: UInt32
    /// What its peer has shown by TLS; nil: it came in clear.
    public var peer: TLSPeer?

    public init(portal: UInt32, peer: TLSPeer? = nil) {
        self.portal = portal
        self.peer = peer
    }
}

/// Asked by whoever speaks with peers that nobody knows yet: the login process, and the data process for its portals behind TLS, each
/// over a door of its own. Whoever asks is held to be hostile.
public enum LoginQuestionMessage: Sendable {
    /// May this begin? With the connection's descriptor, from which control takes the addresses itself.
    case begin(ConnectionID, LoginQuestion, LoginChannel)
    /// This is its answer to the challenge: is it right?
    case authenticate(ConnectionID, CHAPAnswer)
    /// It has negotiated these: let it in. With the connection's descriptor, which goes on to data. In clear the asker has nothing more to do
    /// with the connection, and hears of it only if there is something to tell: `turnAway`.
    case finish(ConnectionID, LoginOutcome)
    case sendTargets(ConnectionID, TextRequest.Selection)
    /// The connection is gone without having finished.
    case gone(ConnectionID)
    /// Sign this for the handshake of a connection to `portal`, which has TLS. Nothing but what servers sign in TLS is signed.
    case sign(RequestID, portal: UInt32, SignatureScheme, [UInt8])
    /// Which key goes with this identity, on a portal with TLS?
    case preSharedKey(RequestID, portal: UInt32, identity: [UInt8])
    /// A TLS handshake has failed, and why. With the connection's descriptor, from which control takes the address itself; where it cannot
    /// any more, since the peer has closed, the source is what the asker says.
    case handshakeFailed(portal: UInt32, TLSFailure.Cause, String, from: Source)
    /// Somebody who is not known has failed. With the connection's descriptor, from which control takes the address itself.
    case failed(LoginOffence)
    /// With how many connections it has not accepted from who has to wait, since it began.
    case heartbeat(UInt64, refused: UInt64)
}

/// Said to whoever asks a `LoginQuestionMessage`.
public enum LoginAnswerMessage: Sendable {
    /// A part of what a portal with TLS presents and accepts, in the form of `ServerMaterial`; before its first connection, and whenever
    /// that is replaced. With the last one whoever is not trusted by it any more is ended.
    case secure(portal: UInt32, [UInt8], isLast: Bool)
    /// nil: it is not signed.
    case signed(RequestID, [UInt8]?)
    /// nil: nobody has that identity.
    case preSharedKey(RequestID, Secret?)
    /// Accept connections from this listening descriptor; in clear, unless there is a `secure` for the portal.
    case listen(portal: UInt32)
    case stopListening(portal: UInt32)
    /// Accept and close at once (system state offline), or serve.
    case setOnline(Bool)
    case proceed(ConnectionID, SessionParameters, portalGroupTag: UInt16, Authentication)
    /// Its answer was right: it may go on, with our own proof if it has asked for one.
    case authenticated(ConnectionID, SessionParameters, CHAPProof?)
    /// It has done what only an attacker does: close it without a word.
    case drop(ConnectionID)
    /// Accept nothing from there for so long.
    case keepOut(Source, milliseconds: UInt32)
    case refuse(ConnectionID, LoginStatus)
    /// Send these bytes on the connection that comes along, and close it: it has negotiated, and is refused all the same.
    case turnAway([UInt8])
    /// A part of the answer to `sendTargets`; the last one says that nothing follows.
    case targets(ConnectionID, [DiscoveredTarget], isLast: Bool)
    case heartbeat(UInt64)
}

/// How a logical unit stores its blocks; the descriptor travels beside it.
public struct StoreDescription: Hashable, Sendable {
    public enum Kind: UInt8, Sendable { case none = 0, null = 1, file = 2, blockDevice = 3 }
    public var kind: Kind
    /// Bytes.
    public var length: UInt64
    public var isSynchronous: Bool
    public var isDirect: Bool
    public var isReadOnly: Bool

    public init(kind: Kind, length: UInt64 = 0, isSynchronous: Bool = false, isDirect: Bool = false, isReadOnly: Bool = false) {
        self.kind = kind
        self.length = length
        self.isSynchronous = isSynchronous
        self.isDirect = isDirect
        self.isReadOnly = isReadOnly
    }
}

/// A one-time grant: whom to serve, and on which connection.
public struct SessionGrant: Sendable {
    public var tid: Int32
    /// Given by control, unique among living sessions, never 0 (RFC 7143 §11.12.6). That of a living session if the
    /// connection takes the place of that session's (RFC 7143 §6.3.4).
    public var tsih: UInt16
    /// Which grant it is: a session may have several, one after the other, and what data says of it is said of one of them.
    public var number: UInt64
    public var outcome: LoginOutcome
    /// Seconds without a word from the initiator before it is pinged, and how many pings may stay unanswered; 0: never.
    public var nopInterval: UInt16
    public var nopCount: UInt16
    /// The logical units it may see and write.
    public var mask: LUNMask
    /// Of the portal by which it has come (RFC 7143 §13.9).
    public var portalGroupTag: UInt16

    public init(
        tid: Int32, tsih: UInt16, number: UInt64 = 0, outcome: LoginOutcome, nopInterval: UInt16, nopCount: UInt16, mask: LUNMask = .all, portalGroupTag: UInt16 = 1
    ) {
        self.mask = mask
        self.portalGroupTag = portalGroupTag
        self.tid = tid
        self.tsih = tsih
        self.number = number
        self.outcome = outcome
        self.nopInterval = nopInterval
        self.nopCount = nopCount
    }
}

/// Said to the data process. Those with a `RequestID` are answered by `.done` or `.refused`.
public enum DataOrderMessage: Sendable {
    case addTarget(RequestID, tid: Int32, name: ISCSIName)
    /// Refused while it has sessions, unless `force`: then they are ended first.
    case removeTarget(RequestID, tid: Int32, force: Bool)
    /// With the store's descriptor if it has one.
    case addLogicalUnit(RequestID, tid: Int32, lun: UInt16, LogicalUnitSettings, StoreDescription, UnitRecord)
    /// `store` nil: it keeps the one that it has; otherwise it is done when the last command of the old one is over.
    /// `forgetsFailedFlush`: the administrator knows of it.
    case updateLogicalUnit(RequestID, tid: Int32, lun: UInt16, LogicalUnitSettings, StoreDescription?, forgetsFailedFlush: Bool)
    /// Could this be served, with this descriptor? Nothing is to change before data has said so.
    case tryStore(RequestID, StoreDescription)
    /// Refused while commands are in it, unless `force`: then they are aborted first.
    case removeLogicalUnit(RequestID, tid: Int32, lun: UInt16, force: Bool)
    /// With the connection's descriptor.
    case grant(SessionGrant)
    /// On a connection that data has accepted itself, through a portal with TLS.
    case grantHere(ConnectionID, SessionGrant)
    /// With data's end of a door of its own for logins: what it asks there waits for nothing that it has to report.
    case openLoginDoor
    /// Ends the session, waits for its I/O.
    case endSession(RequestID, tsih: UInt16)
    /// The session may see and write these from now on; waits for what is in the store of what it may not do any more.
    case setMask(RequestID, tsih: UInt16, grant: UInt64, LUNMask)
    /// A part of the answer to `sendTargets`; the last one says that nothing follows.
    case targets(RequestID, [DiscoveredTarget], isLast: Bool)
    /// The answer to `.keep`. Not kept are its reservations, which are what they were before; of a failed flush it is known.
    case kept(tid: Int32, lun: UInt16, revision: UInt64, isKept: Bool)
    case heartbeat(UInt64)
    /// What is going on? Answered by pages of `.survey`.
    case survey(RequestID)
}

/// Why data did not do what it was told.
public enum DataRefusal: UInt8, Sendable {
    case targetActive = 1, logicalUnitActive, unknownTarget, unknownLogicalUnit, unknownSession, alreadyExists, badStore
}

/// Why a session ended; for `show`, the log and the audit.
public enum SessionEnd: UInt8, Sendable, CustomStringConvertible {
    case loggedOut = 1, connectionLost, protocolError, reinstated, administrator, unanswered, inputStalled, outputStalled, targetReset
    /// What its initiator has shown by TLS is not trusted any more.
    case distrusted
    /// The grant came to nothing: its target had gone.
    case neverBegan

    // Without this it would be found by reflection, for each session.
    public var description: String {
        switch self {
        case .loggedOut: "loggedOut"
        case .connectionLost: "connectionLost"
        case .protocolError: "protocolError"
        case .reinstated: "reinstated"
        case .administrator: "administrator"
        case .unanswered: "unanswered"
        case .inputStalled: "inputStalled"
        case .outputStalled: "outputStalled"
        case .targetReset: "targetReset"
        case .distrusted: "distrusted"
        case .neverBegan: "neverBegan"
        }
    }
}

/// Said and asked by the data process. Whoever asks is held to be hostile.
public enum DataReportMessage: Sendable {
    case done(RequestID)
    case refused(RequestID, DataRefusal)
    /// The granted session serves: its login response is on the way.
    case sessionBegan(tsih: UInt16, grant: UInt64)
    case sessionEnded(tsih: UInt16, grant: UInt64, SessionEnd)
    /// Keep this; answered by `.kept`, before which nothing more is to be kept of the same logical unit.
    case keep(tid: Int32, lun: UInt16, UnitRecord)
    case sendTargets(RequestID, tsih: UInt16, TextRequest.Selection)
    case heartbeat(UInt64)
    /// A part of what a survey has found; the last one says that nothing follows.
    case survey(RequestID, [SurveyEntry], isLast: Bool)
}
