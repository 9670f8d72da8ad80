-- Tells badgeagent how many unread messages a folder has, whenever that may
-- have changed: new mail, flags set or cleared, messages read, appended, moved,
-- trashed or expunged, folders created, renamed or deleted.
--
-- For Dovecot 2.3.9 and later of the 2.3 series, loaded by 11-badgeagent.conf,
-- and for 2.4, loaded by 11-badgeagent-2.4.conf.
--
-- One request goes out for each folder of a transaction, after it was
-- committed. Its URL says user, folder, event, and what STATUS says (unseen,
-- uidvalidity, highestmodseq); it has no body, which Dovecot would announce and
-- wait to be asked for. Of the messages themselves nothing is read, and nothing
-- is sent. STATUS counts messages that are marked \Deleted, so of a
-- transaction that has to do with those the count is left out: badgeagent asks
-- over IMAP.
--
-- Settings, in Dovecot's plugin section (2.3) or in lua_settings (2.4):
--   badgeagent_url    where badgeagent listens, such as
--                     http://127.0.0.1:9466/v1/notify/dovecot
--   badgeagent_token  what it wants as bearer token
--   badgeagent_state  a directory that every mail user can write to, for two
--                     empty files while badgeagent does not answer; default /tmp,
--                     which Debian's dovecot.service has for itself
--
-- Mail never waits long for badgeagent: a request that is not answered within
-- a second is given up, and for up to ten seconds no other is sent, by no
-- process. Dovecot's log says so, at most once a minute from each session. The
-- first request that is answered again says that some were left out, and
-- badgeagent counts all mailboxes anew.

local client
local settings = {}
local silent_until = 0

-- new_client returns an HTTP client. The names of its settings are 2.3's, which
-- 2.4 refuses; 2.3 would pass 2.4's over.
local function new_client()
  local made, result = pcall(dovecot.http.client, {
    connect_timeout_msecs = 500,
    request_timeout_msecs = 1000,
    request_absolute_timeout_msecs = 1000,
    max_attempts = 2, -- the second for a connection that badgeagent has closed
    no_auto_redirect = true,
  })
  if made then return result end
  return dovecot.http.client({
    connect_timeout = "500ms",
    request_timeout = "1s",
    request_absolute_timeout = "1s",
    request_max_attempts = "2",
    auto_redirect = "no",
  })
end

function script_init(given)
  if type(given) == "table" then settings = given end -- 2.4
  client = new_client()
  return 0
end

local function setting(user, name)
  local value = settings[name]
  if value == nil and user.plugin_getenv ~= nil then value = user:plugin_getenv(name) end -- 2.3
  if value == "" then return nil end
  return value
end

local function warn(text)
  if os.time() < silent_until then return end
  silent_until = os.time() + 60
  dovecot.i_warning("badgeagent: " .. text)
end

-- A script lives as long as a user's session, and a delivery to many has many of
-- those. So what they have to know of each other is in empty files: that
-- badgeagent did not answer, for the ten seconds in the file's name, and that
-- something was left out.
local function pause_file(user, time)
  return string.format("%s/badgeagent-pause.%d", setting(user, "badgeagent_state") or "/tmp", time // 10)
end

local function missed_file(user)
  return string.format("%s/badgeagent-missed.%.0f", setting(user, "badgeagent_state") or "/tmp", user.uid)
end

-- exists says whether a file is there; one that may not be read is.
local function exists(path)
  local file, _, code = io.open(path, "r")
  if file ~= nil then file:close() end
  return file ~= nil or code == 13
end

local function touch(path)
  local file = io.open(path, "w")
  if file ~= nil then file:close() end
end

-- encode returns s as it stands in a URL (RFC 3986, section 2.1).
local function encode(s)
  return (s:gsub("[^%w%-._~]", function(c) return string.format("%%%02X", c:byte()) end))
end

-- count returns the URL's parameters that tell the folder's count, or nothing
-- if it cannot be told: badgeagent asks over IMAP then.
local function count(user, folder)
  local counted, status = pcall(function()
    local box = user:mailbox(folder)
    box:sync()
    local status = box:status(dovecot.storage.STATUS_UNSEEN, dovecot.storage.STATUS_UIDVALIDITY, dovecot.storage.STATUS_HIGHESTMODSEQ)
    box:free()
    return status
  end)
  if not counted then return "" end
  return string.format("&unseen=%.0f&uidvalidity=%.0f&highestmodseq=%.0f", status.unseen, status.uidvalidity, status.highest_modseq)
end

local function tell(user, folder, change)
  local url, token = setting(user, "badgeagent_url"), setting(user, "badgeagent_token")
  if url == nil then
    warn("badgeagent_url is not set")
    return
  end
  local missed = missed_file(user)
  if exists(pause_file(user, os.time())) then
    touch(missed)
    return
  end
  local query = "?user=" .. encode(user.username) .. "&folder=" .. encode(folder) .. "&event=" .. encode(change.event)
  if not change.deleted then query = query .. count(user, folder) end
  local left_out = exists(missed)
  if left_out then query = query .. "&missed=true" end
  local began = os.time()
  local request = client:request({ url = url .. query, method = "POST" })
  if token ~= nil then
    request:add_header("Authorization", "Bearer " .. token:gsub("%s+$", ""))
  end
  local response = request:submit()
  if response:status() // 100 == 2 then
    if left_out then os.remove(missed) end
    return
  end
  touch(missed)
  if response:status() >= 9000 and os.time() > began then
    touch(pause_file(user, os.time()))
    os.remove(pause_file(user, os.time() - 10))
  end
  warn(string.format("%s answered %d %s", url, response:status(), response:reason()))
end

function dovecot_lua_notify_begin_txn(user)
  return { user = user, folders = {} }
end

-- deletes says whether an event has to do with messages that are marked \Deleted.
local function deletes(event)
  for _, flag in pairs(event.flags or {}) do
    if flag == "\\Deleted" then return true end
  end
  return false
end

local function changed(txn, event)
  local before = txn.folders[event.mailbox]
  txn.folders[event.mailbox] = { event = event.name, deleted = deletes(event) or before ~= nil and before.deleted }
end

-- MessageRead and MessageTrash are missing: FlagsSet comes with each.
dovecot_lua_notify_event_message_new = changed
dovecot_lua_notify_event_message_append = changed
dovecot_lua_notify_event_message_expunge = changed
dovecot_lua_notify_event_flags_set = changed
dovecot_lua_notify_event_flags_clear = changed
dovecot_lua_notify_event_mailbox_create = changed
dovecot_lua_notify_event_mailbox_delete = changed

function dovecot_lua_notify_event_mailbox_rename(txn, event)
  changed(txn, event)
  if event.mailbox_old ~= nil then txn.folders[event.mailbox_old] = { event = event.name } end
end

-- The end of a transaction comes even if it failed; then nothing has changed.
function dovecot_lua_notify_end_txn(txn, success)
  if success == false then return end
  for folder, change in pairs(txn.folders) do
    local told, why = pcall(tell, txn.user, folder, change)
    if not told then warn(tostring(why)) end
  end
end
