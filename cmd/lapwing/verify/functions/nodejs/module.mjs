const value = await Promise.resolve((event) => event.value);

export const handler = async (event) => value(event);
