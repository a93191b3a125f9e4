import Administration
import Management

/// Requests of tgt's protocol, from their bytes to their answers, one after another on a small configuration.
enum ManagementFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        var desk = ManagementDesk()
        while !input.isEmpty {
            let step = input.byte()
            // Bytes as they come, up to the length of a header and a short text; or a request with a right header.
            let stream = step & 0x80 != 0 ? input.take(120 + input.number()) : encoded(request(&input))
            desk.serve(stream, piece: 1 + Int(step & 0x7f) * 32, outcome: step)
        }
    }

    /// A request of values that are right often enough.
    static func request(_ input: inout Input) -> TgtRequest {
        let (mode, operation) = (TgtRequest.Mode.allCases, TgtRequest.Operation.allCases)
        var request = TgtRequest(mode[input.number() % mode.count], operation[input.number() % operation.count])
        request.tid = Int32(Int8(bitPattern: input.byte()))
        let choices = Choices(input.byte())
        request.lun = choices[0] ? UInt64.max : choices[1] ? input.uint64() : UInt64(input.byte())
        if choices[2] { request.sid = UInt64(input.byte()) }
        if choices[3] { request.cid = UInt32(input.byte()) }
        request.force = choices[4]
        request.accountDirection = choices[5] ? .outgoing : .incoming
        request.deviceType = choices[6] ? UInt32(input.byte()) : 0
        if choices[7] { request.lld = input.take(input.number() & 0x3f).filter { $0 != 0 } }
        request.payload = input.take(input.number()).filter { $0 != 0 }
        return request
    }

    private static func encoded(_ request: TgtRequest) -> [UInt8] {
        guard let bytes = request.encoded() else { preconditionFailure("driver and text are short enough") }
        return bytes
    }
}

/// The same in our own protocol: hello, then a frame with a request or a transaction.
enum NativeFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        var desk = ManagementDesk()
        while !input.isEmpty {
            let step = input.byte()
            let stream =
                switch step & 3 {
                case 0: input.take(Int(input.uint16() & 0xfff))
                case 1: NativeHello().encoded() + frame(step & 4 == 0 ? .request : .transaction, &input)
                default: NativeHello().encoded() + written(&input, isTransaction: step & 1 == 0, step & 4 == 0 ? .text : .json)
                }
            desk.serve(stream, piece: step & 8 == 0 ? Int.max : 1 + Int(step >> 4) * 8, outcome: input.byte())
        }
    }

    /// A right header, and a body as it comes.
    private static func frame(_ kind: NativeFrame.Kind, _ input: inout Input) -> [UInt8] {
        let body = input.take(Int(input.uint16() & 0xfff))
        return [kind.rawValue, 0, 0, 0, 0, 0, UInt8(truncatingIfNeeded: body.count >> 8), UInt8(truncatingIfNeeded: body.count)] + body
    }

    private static func written(_ input: inout Input, isTransaction: Bool, _ format: OutputFormat) -> [UInt8] {
        var requests: [AdminRequest] = []
        for _ in 0...(isTransaction ? input.byte() & 7 : 0) {
            do throws(TgtError) { requests.append(try AdminRequest(ManagementFuzz.request(&input))) } catch {}
        }
        let content: NativeRequest.Content = if !isTransaction, let only = requests.first { .single(only) } else { .transaction(requests) }
        guard let bytes = NativeRequest(content, format: format).encoded() else { preconditionFailure("it is short enough") }
        return bytes
    }
}
