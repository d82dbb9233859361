// Node's own fetch, which sends nothing again by itself.
import { setTimeout } from 'node:timers/promises'
import { credentials, origin, run, text } from './run.mjs'

let retries = 0

async function post(path, body) {
	for (let attempt = 1; ; attempt++) {
		const res = await fetch(origin + path, {
			method: 'POST',
			headers: { ...credentials, 'content-type': 'application/json' },
			body: JSON.stringify(body),
		})
		const after = Number(res.headers.get('retry-after'))
		if (res.status !== 429 || !(after > 0) || attempt === 5) return res
		await res.arrayBuffer() // the connection can be used again
		await setTimeout(after * 1000)
		retries++
	}
}

await run({
	contacts: async () => (await fetch(origin + '/v1/contacts', { headers: credentials })).status,
	unauthorized: async () => {
		const res = await fetch(origin + '/v1/contacts')
		return { status: res.status, problem: await res.json() }
	},
	message: async () => (await post('/v1/messages', text)).status,
	retries: () => retries,
})
