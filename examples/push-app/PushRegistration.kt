// An Android app that registers for push. Call register at each start, after sign-in, and after sign-out (userId null).
// The manifest names the service:
//   <service android:name=".PushService" android:exported="false">
//     <intent-filter><action android:name="com.google.firebase.MESSAGING_EVENT" /></intent-filter>
//   </service>
// From Android 13 on the app first asks for android.permission.POST_NOTIFICATIONS, as for any permission.
package com.example.shop

import android.util.Base64
import com.google.firebase.installations.FirebaseInstallations
import com.google.firebase.messaging.FirebaseMessaging
import com.google.firebase.messaging.FirebaseMessagingService
import java.net.HttpURLConnection
import java.net.URL
import java.util.Locale
import java.util.TimeZone
import java.util.UUID
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import kotlinx.coroutines.tasks.await
import kotlinx.coroutines.withContext
import org.json.JSONObject

private const val HUB = "https://hub.example.com"
private const val WRITE_KEY = "WRITE_KEY"

object PushRegistration {
    /** The id of who is signed in, kept by your app; null while nobody is. */
    var userId: String? = null

    suspend fun register(token: String? = null) {
        val device = FirebaseInstallations.getInstance().id.await()
        val address = token ?: FirebaseMessaging.getInstance().token.await()
        val properties = JSONObject()
            .put("deviceId", device).put("fcmToken", address).put("deviceType", "Android")
        track("Register Push", userId ?: device, properties)
    }

    suspend fun unregister() {
        val device = FirebaseInstallations.getInstance().id.await()
        track("Unregister Push", userId ?: device, JSONObject().put("deviceId", device))
    }

    private suspend fun track(event: String, userId: String, properties: JSONObject) = withContext(Dispatchers.IO) {
        val context = JSONObject()
            .put("timezone", TimeZone.getDefault().id).put("locale", Locale.getDefault().toLanguageTag())
        val call = JSONObject()
            .put("type", "track").put("event", event).put("userId", userId).put("properties", properties)
            .put("messageId", UUID.randomUUID().toString()).put("context", context)
        val connection = URL("$HUB/v1/track").openConnection() as HttpURLConnection
        try {
            connection.requestMethod = "POST"
            connection.doOutput = true
            connection.setRequestProperty("content-type", "application/json")
            val key = Base64.encodeToString("$WRITE_KEY:".toByteArray(), Base64.NO_WRAP)
            connection.setRequestProperty("authorization", "Basic $key")
            connection.outputStream.use { it.write(call.toString().toByteArray()) }
            check(connection.responseCode == 200) { "$event: ${connection.responseCode}" }
        } finally {
            connection.disconnect()
        }
    }
}

class PushService : FirebaseMessagingService() {
    /** Firebase made a new token. */
    override fun onNewToken(token: String) {
        CoroutineScope(Dispatchers.IO).launch { runCatching { PushRegistration.register(token) } }
    }
}
