// got keeps to Retry-After, and sends a POST again if it is told to.
import got from 'got'
import { credentials, origin, run, text } from './run.mjs'

let retries = 0
const client = got.extend({
	prefixUrl: origin,
	headers: credentials,
	retry: { limit: 4, methods: ['GET', 'POST'], statusCodes: [429] },
	hooks: { beforeRetry: [() => { retries++ }] },
})

await run({
	contacts: async () => (await client.get('v1/contacts')).statusCode,
	unauthorized: async () => {
		const error = await got.get(origin + '/v1/contacts').catch((error) => error)
		return { status: error.response.statusCode, problem: JSON.parse(error.response.body) }
	},
	message: async () => (await client.post('v1/messages', { json: text })).statusCode,
	retries: () => retries,
})
