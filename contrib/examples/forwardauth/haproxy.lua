-- forwardauth asks the server of that name about a request. It sets X-Auth-Sender if the
-- request may pass, and otherwise answers it with the refusal.

local unavailable = '{"status":503,"title":"Service Unavailable","detail":"The service is temporarily unavailable. Please retry.","type":"about:blank"}'
local url = "http://127.0.0.1:8090/"

-- lines returns all lines of a field, which HAProxy counts from 0 and its client from 1.
local function lines(headers, name)
	local all = {}
	for _, line in pairs(headers[name] or {}) do
		all[#all + 1] = line
	end
	return all
end

local function first(headers, name)
	local line = lines(headers or {}, name)[1]
	return line
end

core.register_action("forwardauth", {"http-req"}, function(txn)
	local headers = txn.http:req_get_headers()
	local ask = {
		["x-forwarded-method"] = {txn.f:method()},
		["x-forwarded-uri"] = {txn.sf:pathq()}, -- empty for OPTIONS * and CONNECT
		["x-forwarded-proto"] = {txn.f:ssl_fc() == 1 and "https" or "http"},
		["x-forwarded-for"] = {txn.f:src()},
	}
	for _, name in ipairs({"x-sender-id", "x-api-key"}) do
		if headers[name] then
			ask[name] = lines(headers, name)
		end
	end
	local answer = core.httpclient():get{url = url, headers = ask, timeout = 5000}
	local sender = answer and first(answer.headers, "x-auth-sender")
	if answer and answer.status == 204 and sender then
		txn.http:req_set_header("X-Auth-Sender", sender)
		txn:set_var("txn.ratelimit", first(answer.headers, "ratelimit"))
		txn:set_var("txn.ratelimit_policy", first(answer.headers, "ratelimit-policy"))
		return
	end
	-- Without an answer of forwardauth there is one of HAProxy's own, as a page.
	local reply = txn:reply{status = 503, body = unavailable}
	reply:add_header("content-type", "application/problem+json")
	if answer and first(answer.headers, "x-auth-problem") then
		reply = txn:reply{status = answer.status, body = answer.body}
		for _, name in ipairs({"content-type", "cache-control", "x-content-type-options", "www-authenticate", "retry-after", "ratelimit", "ratelimit-policy"}) do
			local line = first(answer.headers, name)
			if line then
				reply:add_header(name, line)
			end
		end
	end
	txn:done(reply)
end)
