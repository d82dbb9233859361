# Uploads SIZE bytes to URL, N times one after the other, and prints one line of JSON
# for each: the status and the body of the answer, or the error. It sends FIRST bytes at
# once and then CHUNK bytes every MS milliseconds, or everything at once if CHUNK is 0.
# It reads nothing until it has sent everything.
import http.client, json, sys, time, urllib.parse

url, size, first, chunk, ms, n = sys.argv[1], *map(int, sys.argv[2:])
at = urllib.parse.urlsplit(url)


def upload():
    conn = http.client.HTTPConnection(at.hostname, at.port, timeout=120)
    conn.putrequest("POST", at.path)
    conn.putheader("Content-Length", str(size))
    conn.endheaders()
    if not chunk:
        conn.send(bytes(size))
    else:
        conn.send(bytes(min(first, size)))
        sent, start, chunks = min(first, size), time.monotonic(), 0
        while sent < size:
            chunks += 1
            time.sleep(max(0, start + chunks * ms / 1000 - time.monotonic()))
            conn.send(bytes(min(chunk, size - sent)))
            sent += chunk
    response = conn.getresponse()
    answer = {"status": response.status, "body": response.read().decode()}
    conn.close()
    return answer


for _ in range(n):
    try:
        answer = upload()
    except Exception as e:
        answer = {"error": repr(e)}
    print(json.dumps(answer), flush=True)
