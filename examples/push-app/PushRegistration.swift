// An iOS app that registers for push. Call `ask` when the person has seen why, `register` after sign-in and after
// sign-out (userId nil); Firebase calls `didReceiveRegistrationToken` at each start and for a new token.
import FirebaseCore
import FirebaseInstallations
import FirebaseMessaging
import UIKit
import UserNotifications

let hub = URL(string: "https://hub.example.com/v1/track")!
let writeKey = "WRITE_KEY"

final class PushRegistration: NSObject, MessagingDelegate {
    /// The id of who is signed in, kept by your app; nil while nobody is.
    var userId: String?

    /// Call it once, after FirebaseApp.configure().
    func begin() {
        Messaging.messaging().delegate = self
    }

    func ask() async throws {
        let options: UNAuthorizationOptions = [.alert, .badge, .sound]
        guard try await UNUserNotificationCenter.current().requestAuthorization(options: options) else { return }
        await UIApplication.shared.registerForRemoteNotifications()
        try await register()
    }

    func register(token: String? = nil) async throws {
        let settings = await UNUserNotificationCenter.current().notificationSettings()
        guard settings.authorizationStatus == .authorized else { return }
        let device = try await Installations.installations().installationID()
        var address = token
        if address == nil { address = try await Messaging.messaging().token() }
        let properties = ["deviceId": device, "fcmToken": address!, "deviceType": "iOS"]
        try await track("Register Push", userId ?? device, properties)
    }

    func unregister() async throws {
        let device = try await Installations.installations().installationID()
        try await track("Unregister Push", userId ?? device, ["deviceId": device])
    }

    func messaging(_ messaging: Messaging, didReceiveRegistrationToken fcmToken: String?) {
        Task { try? await register(token: fcmToken) }
    }

    private func track(_ event: String, _ userId: String, _ properties: [String: String]) async throws {
        let context = ["timezone": TimeZone.current.identifier, "locale": Locale.current.identifier]
        let call: [String: Any] = [
            "type": "track", "event": event, "userId": userId, "properties": properties,
            "messageId": UUID().uuidString, "context": context,
        ]
        var request = URLRequest(url: hub)
        request.httpMethod = "POST"
        request.setValue("application/json", forHTTPHeaderField: "content-type")
        let key = Data("\(writeKey):".utf8).base64EncodedString()
        request.setValue("Basic \(key)", forHTTPHeaderField: "authorization")
        request.httpBody = try JSONSerialization.data(withJSONObject: call)
        let (_, answer) = try await URLSession.shared.data(for: request)
        guard (answer as? HTTPURLResponse)?.statusCode == 200 else { throw URLError(.badServerResponse) }
    }
}
