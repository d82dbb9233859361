// What each client does: a call that is admitted, one without a key, and calls until one of
// them was refused by the limit and sent again. A client has the functions
//
//	contacts()      the status of GET /v1/contacts
//	unauthorized()  the status and the problem of the same without a key
//	message()       the status of POST /v1/messages, in the end
//	retries()       how often it has sent a message again
//
// The result is written to standard output, as JSON.

export const origin = process.argv[2]
export const credentials = {
	'x-sender-id': process.env.SENT_SENDER_ID,
	'x-api-key': process.env.SENT_API_KEY,
}
export const text = { to: '+15550100', text: 'Hello' }

export async function run({ contacts, unauthorized, message, retries }) {
	const result = { contacts: await contacts(), unauthorized: await unauthorized() }
	do {
		result.message = await message()
	} while (result.message === 202 && retries() === 0)
	result.retries = retries()
	console.log(JSON.stringify(result))
}
