import CPAM
import Crypto
import Glibc

/// Whom a module of PAM lets the application ask, and show things.
public protocol PAMDialogue: AnyObject {
    /// Shows a text.
    /// - Returns: false if there is nobody, or no more patience
    func show(_ text: [UInt8], isError: Bool) -> Bool
    /// Asks for a line.
    /// - Parameters:
    ///   - isSecret: what is typed must not be seen
    ///   - answer: gets it; it is wiped by whoever has called
    /// - Returns: false if nobody answers
    func ask(_ question: [UInt8], isSecret: Bool, answer: inout [UInt8]) -> Bool
}

/// How far a transaction came, and what PAM said there.
public struct PAMVerdict: Hashable, Sendable {
    public enum Step: UInt8, Sendable, CaseIterable {
        case start = 1, authenticate, account
        /// In the end it is somebody else.
        case user
        case granted
    }
    public let step: Step
    /// PAM's own (pam(3)); 0 is success.
    public let code: Int32

    public init(step: Step, code: Int32) {
        self.step = step
        self.code = code
    }

    public var isGranted: Bool { step == .granted }
}

/// Transactions of PAM. They may take for ever, load code of others and leave anything behind: each belongs into a process of its own.
public enum PAM {
    /// Asks PAM whether a user may go on.
    /// - Parameters:
    ///   - directory: where the service's file is; nil: where PAM looks for them
    ///   - authenticates: whether the user has to prove who it is; its account is looked at in any case
    public static func run(service: String, directory: String?, user: String, authenticates: Bool, dialogue: any PAMDialogue) -> PAMVerdict {
        let holder = DialogueHolder(dialogue)
        var conversation = unsafe pam_conv(conv: converse, appdata_ptr: Unmanaged.passUnretained(holder).toOpaque())
        var handle: OpaquePointer?
        let started = if let directory {
            unsafe pam_start_confdir(service, user, &conversation, directory, &handle)
        } else {
            unsafe pam_start(service, user, &conversation, &handle)
        }
        guard started == PAM_SUCCESS, let handle = unsafe handle else { return PAMVerdict(step: .start, code: started) }
        let verdict = unsafe steps(handle, user: user, authenticates: authenticates)
        unsafe pam_end(handle, verdict.code)
        withExtendedLifetime(holder) {}
        return verdict
    }

    private static func steps(_ handle: OpaquePointer, user: String, authenticates: Bool) -> PAMVerdict {
        // For modules that log and for those that ask where somebody sits. Nobody is remote.
        for (item, text) in [(PAM_RUSER, user), (PAM_TTY, "tgtadm")] {
            let result = unsafe text.withCString { unsafe pam_set_item(handle, item, $0) }
            guard result == PAM_SUCCESS else { return PAMVerdict(step: .start, code: result) }
        }
        if authenticates {
            let result = unsafe pam_authenticate(handle, Int32(PAM_DISALLOW_NULL_AUTHTOK))
            guard result == PAM_SUCCESS else { return PAMVerdict(step: .authenticate, code: result) }
        }
        let account = unsafe pam_acct_mgmt(handle, Int32(PAM_DISALLOW_NULL_AUTHTOK))
        guard account == PAM_SUCCESS else { return PAMVerdict(step: .account, code: account) }
        var item: UnsafeRawPointer?
        let result = unsafe pam_get_item(handle, PAM_USER, &item)
        guard result == PAM_SUCCESS, let name = unsafe item, unsafe strcmp(name.assumingMemoryBound(to: CChar.self), user) == 0 else {
            return PAMVerdict(step: .user, code: result)
        }
        return PAMVerdict(step: .granted, code: PAM_SUCCESS)
    }

    /// Messages of one call: PAM_MAX_NUM_MSG.
    fileprivate static let mostMessages: Int32 = 32
    /// Bytes of a message that are looked at.
    fileprivate static let mostText = 4096
    /// Bytes of an answer: PAM_MAX_RESP_SIZE with its zero.
    fileprivate static let mostAnswer = 511
}

private final class DialogueHolder {
    let dialogue: any PAMDialogue
    init(_ dialogue: any PAMDialogue) { self.dialogue = dialogue }
}

/// PAM's conversation: takes the messages to the dialogue, one after the other. What it gives is PAM's to free.
private func converse(
    count: Int32, messages: UnsafeMutablePointer<UnsafePointer<pam_message>?>?, responses: UnsafeMutablePointer<UnsafeMutablePointer<pam_response>?>?,
    data: UnsafeMutableRawPointer?
) -> Int32 {
    guard let messages = unsafe messages, let responses = unsafe responses, let data = unsafe data, (1...PAM.mostMessages).contains(count) else { return PAM_CONV_ERR }
    let dialogue = unsafe Unmanaged<DialogueHolder>.fromOpaque(data).takeUnretainedValue().dialogue
    guard let answers = unsafe calloc(Int(count), MemoryLayout<pam_response>.size)?.bindMemory(to: pam_response.self, capacity: Int(count)) else { return PAM_BUF_ERR }
    for index in 0..<Int(count) {
        guard let message = unsafe messages[index], unsafe answer(message.pointee, &answers[index], dialogue) else {
            for given in 0..<index {
                if let text = unsafe answers[given].resp {
                    unsafe explicit_bzero(text, strlen(text))
                    unsafe free(text)
                }
            }
            unsafe free(answers)
            return PAM_CONV_ERR
        }
    }
    unsafe responses.pointee = answers
    return PAM_SUCCESS
}

private func answer(_ message: pam_message, _ response: inout pam_response, _ dialogue: any PAMDialogue) -> Bool {
    var text: [UInt8] = []
    if let start = unsafe message.msg { text = unsafe Array(UnsafeRawBufferPointer(start: start, count: strnlen(start, PAM.mostText))) }
    switch unsafe message.msg_style {
    case PAM_TEXT_INFO, PAM_ERROR_MSG: return unsafe dialogue.show(text, isError: message.msg_style == PAM_ERROR_MSG)
    case PAM_PROMPT_ECHO_ON, PAM_PROMPT_ECHO_OFF:
        var typed: [UInt8] = []
        typed.reserveCapacity(1024)
        defer { wipe(typed) }
        guard unsafe dialogue.ask(text, isSecret: message.msg_style == PAM_PROMPT_ECHO_OFF, answer: &typed), typed.count <= PAM.mostAnswer, !typed.contains(0),
            let memory = unsafe calloc(typed.count + 1, 1) else { return false }
        unsafe typed.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { unsafe memory.copyMemory(from: base, byteCount: bytes.count) }
        }
        unsafe response.resp = memory.assumingMemoryBound(to: CChar.self)
        return true
    default: return false
    }
}
