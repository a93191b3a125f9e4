import Glibc
import Management

/// The transaction's requests with their lines' numbers; ends the program at the first line that is none.
func requests(of transaction: TgtadmCommandLine.Transaction, name: String, _ options: Options) -> [(number: Int, request: AdminRequest)] {
    guard let text = readAll(transaction.path, "a transaction", limit: TransactionText.greatestLength) else { finish(TgtadmExit(code: TgtadmExit.invalid)) }
    let lines: [TransactionText.Line]
    do throws(TransactionText.Malformed) { lines = try TransactionText(text).lines } catch {
        finish(TgtadmExit(errors: ["tgtadm: \(name):\(error.line): \(error.reason)"], code: TgtadmExit.invalid))
    }
    return lines.map { line in
        let place = "\(name):\(line.number)"
        switch options.request(of: line, place: place) {
        case .success(var request):
            if request.lld.isEmpty { request.lld = transaction.lld }
            return (line.number, request)
        case .failure(var end):
            end.errors = end.errors.map { "tgtadm: \(place): \($0.hasPrefix("tgtadm: ") ? String($0.dropFirst(8)) : $0)" }
            end.output = []
            end.code = TgtadmExit.invalid
            finish(end)
        }
    }
}

func carryOut(_ transaction: TgtadmCommandLine.Transaction, _ options: Options) -> Never {
    let name = transaction.path.elementsEqual("-".utf8) ? "standard input" : String(decoding: transaction.path, as: UTF8.self)
    let requests = requests(of: transaction, name: name, options)
    guard let bytes = NativeRequest(.transaction(requests.map(\.request)), format: transaction.format).encoded() else {
        finish(TgtadmExit(
            errors: ["tgtadm: \(name): a transaction has at most \(NativeProtocol.greatestTransaction) requests and \(NativeProtocol.greatestRequest) bytes"],
            code: TgtadmExit.invalid))
    }
    debug(transaction.isDebugging, "sends \(requests.count) requests in \(bytes.count) bytes to tgtd")
    switch ask(bytes, at: socketPath(transaction.controlPort), Answerer(file: transaction.answers)) {
    case .answer(let answer):
        finish(TgtadmExit(answer, format: transaction.format) { requests.indices.contains($0) ? "\(name):\(requests[$0].number)" : nil })
    case .noDaemon: finish(.noDaemon)
    case .lost: finish(TgtadmExit(.reset))
    case .notSpoken(let versions): finish(.notSpoken("--transaction", versions: versions))
    }
}
