// axios, with axios-retry: it sends a POST again only if it is told to, and keeps to
// Retry-After only with its exponential delay.
import axios from 'axios'
import axiosRetry from 'axios-retry'
import { credentials, origin, run, text } from './run.mjs'

let retries = 0
const client = axios.create({ baseURL: origin, headers: credentials })
axiosRetry(client, {
	retries: 4,
	retryCondition: (error) => error.response?.status === 429,
	retryDelay: axiosRetry.exponentialDelay,
	onRetry: () => { retries++ },
})

await run({
	contacts: async () => (await client.get('/v1/contacts')).status,
	unauthorized: async () => {
		const error = await axios.get(origin + '/v1/contacts').catch((error) => error)
		return { status: error.response.status, problem: error.response.data }
	},
	message: async () => (await client.post('/v1/messages', text)).status,
	retries: () => retries,
})
