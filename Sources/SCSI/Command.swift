import Bytes
import Medium

/// An I_T nexus while it lives: unique within a data process, never used again.
public struct NexusID: Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A SCSI initiator port as iSCSI names it: initiator name and ISID (RFC 7143 §3.4.2). What persistent reservations are
/// tied to; it outlives the nexus.
public struct InitiatorPort: Hashable, Sendable {
    /// The iSCSI name in its folded form, 1…223 bytes.
    public let name: [UInt8]
    /// The ISID, 48 bits.
    public let isid: UInt64

    public init(name: [UInt8], isid: UInt64) {
        self.name = name
        self.isid = isid
    }
}

/// A SCSI target port: the iSCSI target name and target portal group tag (RFC 7143 §3.4.2).
public struct TargetPort: Hashable, Sendable {
    /// The iSCSI name in its folded form.
    public let name: [UInt8]
    public let portalGroupTag: UInt16
    /// RELATIVE TARGET PORT IDENTIFIER (SPC-4 §7.8.6.8): both are numbers from 1 on that tell a target's ports apart.
    public var relativeIdentifier: UInt16 { portalGroupTag }

    public init(name: [UInt8], portalGroupTag: UInt16) {
        self.name = name
        self.portalGroupTag = portalGroupTag
    }
}

/// An I_T nexus of one target by the names of its ends (SAM-5 §4.5), whether it lives or not: there is one at a time (RFC 7143 §6.3.5), and persistent
/// registrations are tied to it.
public struct NexusName: Hashable, Sendable {
    public let initiator: InitiatorPort
    /// Of the target port; its relative identifier, too.
    public let portalGroupTag: UInt16

    public init(initiator: InitiatorPort, portalGroupTag: UInt16) {
        self.initiator = initiator
        self.portalGroupTag = portalGroupTag
    }
}

/// A command descriptor block of at most 16 bytes, padded with zeros (SPC-4 §4.3). Longer ones do not exist for us: their
/// operation code (7Fh) is answered as unknown.
public struct CommandDescriptorBlock: Sendable {
    public var bytes: InlineArray<16, UInt8>
    public init(_ bytes: InlineArray<16, UInt8>) { self.bytes = bytes }

    public var operationCode: UInt8 { bytes[0] }
}

/// A logical unit number as it stands in the eight bytes of the LUN field (SAM-5 §4.7), big-endian.
public struct LogicalUnitNumber: Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The number 0…16383 if the field holds a single-level one: peripheral addressing (bus 0) or flat space (SAM-5 §4.7.7).
    public var flat: Int? {
        let first = UInt16(truncatingIfNeeded: rawValue >> 48)
        guard rawValue & 0x0000_ffff_ffff_ffff == 0 else { return nil }
        switch first >> 14 {
        case 0 where first >> 8 == 0: return Int(first & 0xff)
        case 1: return Int(first & 0x3fff)
        default: return nil
        }
    }

    /// The field for a flat number: peripheral addressing up to 255, flat space above.
    public init(flat number: Int) {
        precondition((0..<16384).contains(number))
        rawValue = UInt64(number < 256 ? number : 0x4000 | number) << 48
    }
}

/// Task attributes (SAM-5 §8.6).
public enum TaskAttribute: UInt8, Sendable {
    case untagged = 0, simple = 1, ordered = 2, headOfQueue = 3, aca = 4
}

/// Status codes (SAM-5 §5.3.1).
public enum Status: UInt8, Sendable {
    case good = 0x00, checkCondition = 0x02, conditionMet = 0x04, busy = 0x08
    case reservationConflict = 0x18, taskSetFull = 0x28, acaActive = 0x30, taskAborted = 0x40
}

/// The end of a command: what the transport delivers to the initiator.
public struct Completion: Sendable {
    public var status: Status
    /// Sense data as they go over the wire, already in the logical unit's format; empty unless CHECK CONDITION.
    public var sense: [UInt8]
    public var dataIn: DataIn

    /// What the command returns. Its length is the natural one of the command after ALLOCATION LENGTH has been applied; the
    /// transport truncates it to what the initiator expects and reports the residual.
    public enum DataIn: Sendable {
        case none
        case bytes([UInt8])
        /// The first `count` bytes of the task's buffer.
        case buffer(Int)
    }

    public init(status: Status = .good, sense: [UInt8] = [], dataIn: DataIn = .none) {
        self.status = status
        self.sense = sense
        self.dataIn = dataIn
    }
}

/// What happens next with a command.
public enum Step: Sendable {
    /// It is over.
    case done(Completion)
    /// Do this on the medium, then call `LogicalUnit.resume`. `bufferLength` is what the task's buffer must hold, in bytes: a
    /// buffer that already has the Data-Out bytes is kept if it is large enough, and it is whenever Data-Out is involved.
    case medium(Operation, bufferLength: Int)
    /// Have what `LogicalUnit.recordToKeep` says kept outside of this process; call `LogicalUnit.resume` with `.done` when this revision
    /// `LogicalUnit.isDecided`.
    case keep(UInt64)
}
